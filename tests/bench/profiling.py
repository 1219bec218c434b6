"""Where a system under test spends its time under full load: the ten dearest lines of perf's report."""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import build
import load
from groups import GROUPS
from processes import Trouble
from rig import Rig, end_in_order, step_aside

SECONDS, SAMPLES_PER_SECOND = 6, 997


def main():
    parser = argparse.ArgumentParser(description="Prints the ten dearest lines of a profile under full load.")
    groups = [name for name, group in GROUPS.items() if not group.alone]
    parser.add_argument("row", nargs="?", default="memory", metavar="ROW", help="as in tests/bench/run (default memory)")
    parser.add_argument("--group", default="h1", choices=groups, help="default h1")
    chosen = parser.parse_args()
    group = GROUPS[chosen.group]
    if chosen.row not in group.rows:
        parser.error(f"{chosen.group} has the rows {' '.join(group.rows)}")
    row = group.rows[chosen.row]
    end_in_order()
    try:
        binary = build.working_tree()
        step_aside()
        with tempfile.TemporaryDirectory(prefix="cloakroom-bench-") as run, Rig(Path(run), binary) as rig, contextlib.ExitStack() as stack:
            rig.begin()
            stack.enter_context(rig.arranged(group.way))
            sut = group.start(rig, stack, row)
            data = Path(run, "perf.data")
            pids = ",".join(map(str, sut.process.all()))
            with subprocess.Popen(
                ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_PER_SECOND), "-p", pids, "-o", data, "--", "sleep", str(SECONDS)],
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as perf:
                found = load.saturate(rig, sut, group.load, SECONDS)
                _, complaint = perf.communicate(timeout=30)
            if perf.returncode:
                raise Trouble(f"perf does not work here; tests/bench/instructions shows the dearest functions by callgrind. {complaint}")
            report = subprocess.run(
                ["perf", "report", "-i", data, "--stdio", "--no-children", "--sort", "dso,symbol"], capture_output=True, text=True, timeout=300)
    except (Trouble, OSError, subprocess.SubprocessError) as trouble:
        sys.exit(str(trouble))
    lines = re.findall(r"^ +([\d.]+%) +(\S+) +\[(.)\] (.+?)(?:  .*)?$", report.stdout, re.M)
    kernel = sum(float(share[:-1]) for share, _, ring, _ in lines if ring == "k")
    print(f"{row.name}, {group.title}: {found['cpu_us']:.1f} µs of CPU per request, {kernel:.0f} % of it in the kernel. The ten dearest:\n")
    print("| share | µs | where | function |\n| --: | --: | --- | --- |")
    for share, where, _, function in lines[:10]:
        print(f"| {share} | {float(share[:-1]) / 100 * found['cpu_us']:.2f} | {where} | `{function[:140]}` |")


if __name__ == "__main__":
    main()
