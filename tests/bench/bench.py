"""The benchmark: rows, rounds, medians, targets. tests/bench/README.md says how to run and read it."""

import argparse
import contextlib
import itertools
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
    parser.add_argument("--rounds", type=int, default=3, help="how often everything starts afresh (default 3)")
    parser.add_argument("--turns", type=int, default=5, help="how often each row is loaded in a round, in turn with those that it is compared with (default 5)")
    parser.add_argument("--seconds", type=int, default=1, help="length of each load (default 1)")
    parser.add_argument("--rate", type=int, default=2000, help="requests per second for the latencies of small answers (default 2000)")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/cloakroom", help="what is measured (default target/release/cloakroom)")
    parser.add_argument("--only", nargs="+", metavar="ROW[/GROUP]", help=f"rows: {' '.join(rows)}; groups: {' '.join(GROUPS)}; or /GROUP")
    parser.add_argument("--quick", action="store_true", help="one round, one turn, of one second: shows that the benchmark works, not how fast anything is")
    parser.add_argument("--readme", action="store_true", help="writes the figures into README.md, too")
    chosen = parser.parse_args(words)
    # Connections in a crowd, of which twice as many come in clear; and seconds after they have gone.
    chosen.crowd, chosen.gone, chosen.rate_seconds = 5000, 60, 4
    if chosen.quick:
        chosen.rounds = chosen.turns = chosen.seconds = 1
        chosen.crowd, chosen.gone, chosen.rate_seconds = 250, 3, 1
    if min(chosen.rounds, chosen.turns, chosen.rate) < 1 or not 1 <= chosen.seconds <= 10:
        # nginx ends a connection after 50,000 requests, and h2load then gives that connection up: ten seconds stay below that.
        parser.error("--rounds, --turns and --rate are at least 1, --seconds is from 1 to 10")
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
    """All rounds: what was found, for each row a list with one entry for each turn, and why some rows are no good."""

    def __init__(self, rig, chosen):
        self.rig, self.chosen = rig, chosen
        self.results, self.invalid, self.waiting = {case: [] for case in chosen.cases}, {}, []

    def all(self):
        for self.number in range(1, self.chosen.rounds + 1):
            for _, cases in itertools.groupby(self.chosen.cases, lambda case: GROUPS[case[0]].beside or case[0]):
                cases = [case for case in cases if case not in self.invalid]
                if any(GROUPS[group].alone for group, _ in cases):
                    self.alone(cases)
                else:
                    self.side_by_side(cases)
            while self.waiting:
                time.sleep(max(0, self.waiting[0][0] - time.monotonic()))
                self.look_again(time.monotonic())

    def side_by_side(self, cases):
        """All rows start, and are loaded one after the other, to and fro: the machine's speed may change by half within a minute."""
        with contextlib.ExitStack() as all_of_them:
            suts, stacks = {}, {case: all_of_them.enter_context(contextlib.ExitStack()) for case in cases}

            def each(cases, what, do):
                for case in cases:
                    group, row = GROUPS[case[0]], GROUPS[case[0]].rows[case[1]]
                    if case not in self.invalid:
                        with self.judging(case, what), self.rig.arranged(group.way):
                            do(case, group, row)
                    if case in self.invalid:
                        stacks[case].close()  # whatever it is busy with would be in the way of the others
                    self.look_again(time.monotonic())

            def start(case, group, row):
                self.rig.take_place(cases.index(case))
                suts[case] = group.start(self.rig, stacks[case], row)

            def turn(case, group, row):
                self.results[case].append(group.turn(self.rig, suts[case].its_turn(), row, self.chosen))

            def latencies(case, group, _row):
                self.results[case][-1] |= group.latencies(self.rig, suts[case].its_turn(), self.chosen)

            each(cases, "starts", start)
            for number in range(1, self.chosen.turns + 1):
                each(cases if number % 2 else cases[::-1], f"turn {number} of {self.chosen.turns}", turn)
            each(cases, "latencies", latencies)

    def alone(self, cases):
        """One row after the other. What wants to be looked at again later stays until then, idle."""
        for case in cases:
            group = GROUPS[case[0]]
            if group.once and self.number > 1:
                continue
            with self.judging(case, "alone"), self.rig.arranged(group.way), contextlib.ExitStack() as stack:
                self.rig.take_place(0)
                found = group.alone(self.rig, stack, group, group.rows[case[1]], self.chosen)
                if "later" in found:
                    seconds, look = found.pop("later")
                    ending = self.rig.enter_context(stack.pop_all())
                    self.waiting.append((time.monotonic() + seconds, case, found, look, ending))
                self.results[case].append(found)
            self.look_again(time.monotonic())

    @contextlib.contextmanager
    def judging(self, case, what):
        print(f"round {self.number} of {self.chosen.rounds}: {'/'.join(reversed(case))}, {what}", file=sys.stderr, flush=True)
        try:
            yield
        except (Trouble, OSError, subprocess.SubprocessError) as trouble:
            self.invalid[case] = str(trouble)
            print(f"INVALID {'/'.join(reversed(case))}: {trouble}", file=sys.stderr, flush=True)

    def look_again(self, now):
        for entry in [entry for entry in self.waiting if entry[0] <= now]:
            self.waiting.remove(entry)
            _, case, found, look, ending = entry
            with self.judging(case, "looked at again"):
                found |= look()
            ending.close()


def main():
    chosen = arguments()
    end_in_order()
    step_aside()
    before, began = machine.load_average(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cloakroom-bench-") as folder, Rig(Path(folder), chosen.binary.resolve()) as rig:
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
