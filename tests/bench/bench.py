"""The benchmark: rows, rounds, medians, targets. tests/bench/README.md says how to run and read it."""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import readme
import table
import targets
from groups import GROUPS
from processes import Trouble
from rig import ROOT, Rig, end_in_order, step_aside


def arguments(words=None):
    rows = dict.fromkeys(row for group in GROUPS.values() for row in group.rows)
    parser = argparse.ArgumentParser(description="Measures cloakroom beside its peers and prints tables.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each row is measured, in turn with all others (default 3)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each load (default 4)")
    parser.add_argument("--rate", type=int, default=2000, help="requests per second for the latencies of small answers (default 2000)")
    parser.add_argument("--only", nargs="+", metavar="ROW[/GROUP]", help=f"rows: {' '.join(rows)}; groups: {' '.join(GROUPS)}; or /GROUP")
    parser.add_argument("--quick", action="store_true", help="one round of one second: shows that the benchmark works, not how fast anything is")
    parser.add_argument("--readme", action="store_true", help="writes the figures into README.md, too")
    chosen = parser.parse_args(words)
    # Connections in a crowd, of which twice as many come in clear; and seconds after they have gone.
    chosen.crowd, chosen.gone = 5000, 60
    if chosen.quick:
        chosen.rounds = chosen.seconds = 1
        chosen.crowd, chosen.gone = 250, 3
    if min(chosen.rounds, chosen.rate) < 1 or not 1 <= chosen.seconds <= 10:
        # nginx ends a connection after 50,000 requests, and h2load then gives that connection up: ten seconds stay below that.
        parser.error("--rounds and --rate are at least 1, --seconds is from 1 to 10")
    if chosen.readme and (chosen.only or chosen.quick):
        parser.error("--readme wants a whole run: without --only and --quick")
    every = [(group, row) for group in GROUPS for row in GROUPS[group].rows]
    chosen.cases = [case for case in every if not chosen.only or any(matches(case, wanted) for wanted in chosen.only)]
    for wanted in chosen.only or []:
        if not any(matches(case, wanted) for case in every):
            parser.error(f"--only {wanted} is no row; rows are {' '.join(rows)}, groups {' '.join(GROUPS)}")
    return chosen


def matches(case, wanted):
    row, _, group = wanted.partition("/")
    return row in ("", case[1]) and group in ("", case[0])


class Run:
    """All rounds: what was found, for each row a list with one entry for each round, and why some rows are no good."""

    def __init__(self, rig, chosen):
        self.rig, self.chosen = rig, chosen
        self.results, self.invalid, self.waiting = {case: [] for case in chosen.cases}, {}, []

    def all(self):
        for number in range(1, self.chosen.rounds + 1):
            for case in self.chosen.cases:
                if case in self.invalid or (GROUPS[case[0]].once and number > 1):
                    continue
                print(f"round {number} of {self.chosen.rounds}: {'/'.join(reversed(case))}", file=sys.stderr, flush=True)
                with self.judging(case):
                    self.results[case].append(self.measure(case))
                self.look_again(time.monotonic())
            while self.waiting:
                time.sleep(max(0, self.waiting[0][0] - time.monotonic()))
                self.look_again(time.monotonic())

    @contextlib.contextmanager
    def judging(self, case):
        try:
            yield
        except (Trouble, OSError, subprocess.SubprocessError) as trouble:
            self.invalid[case] = str(trouble)
            print(f"INVALID {'/'.join(reversed(case))}: {trouble}", file=sys.stderr, flush=True)

    def measure(self, case):
        """One row in one round. What it wants to look at again later stays until then, idle."""
        group = GROUPS[case[0]]
        row = group.rows[case[1]]
        with self.rig.arranged(group.way), contextlib.ExitStack() as stack:
            found = group.measure(self.rig, stack, group, row, self.chosen)
            if "later" in found:
                seconds, look = found.pop("later")
                ending = self.rig.enter_context(stack.pop_all())
                self.waiting.append((time.monotonic() + seconds, case, found, look, ending))
        return found

    def look_again(self, now):
        for entry in [entry for entry in self.waiting if entry[0] <= now]:
            self.waiting.remove(entry)
            _, case, found, look, ending = entry
            with self.judging(case):
                found |= look()
            ending.close()


def main():
    chosen = arguments()
    end_in_order()
    step_aside()
    before, began = machine.load_average(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cloakroom-bench-") as folder, Rig(Path(folder), ROOT / "target/release/cloakroom") as rig:
        rig.begin()
        run = Run(rig, chosen)
        run.all()
    seconds = time.monotonic() - began
    print(table.write(GROUPS, run.results, run.invalid))
    print(f"\n{targets.write(run.results, run.invalid)}")
    print(machine.describe(chosen, run.results, before, seconds))
    if run.invalid:
        sys.exit(1)
    if chosen.readme:
        readme.rewrite(table.short(GROUPS, run.results), targets.write(run.results, {}), machine.describe(chosen, run.results, before, seconds, short=True))


if __name__ == "__main__":
    main()
