"""Compares two commits by the instructions that a request costs. tests/bench/README.md says how to run and read it."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean

import build
import callgrind
from callgrind import ROUTES
from processes import Trouble
from rig import Rig, end_in_order, step_aside


def main():
    parser = argparse.ArgumentParser(description="Compares two commits by the instructions that a request costs, as callgrind counts them.")
    parser.add_argument("before", nargs="?", default="HEAD~1", metavar="COMMIT_A", help="default: HEAD~1")
    parser.add_argument("after", nargs="?", default="HEAD", metavar="COMMIT_B", help="default: HEAD")
    parser.add_argument("--repeats", type=int, default=2, help="how often each is counted (default 2)")
    chosen = parser.parse_args()
    if chosen.repeats < 1:
        parser.error("--repeats is at least 1")
    end_in_order()
    try:
        commits = [build.resolve(name) for name in (chosen.before, chosen.after)]
        binaries = [build.commit(commit) for commit in commits]
        step_aside()
        with tempfile.TemporaryDirectory(prefix="cloakroom-bench-") as run, Rig(Path(run), None) as rig:
            rig.begin(with_receiver=False)
            report(chosen, commits, count(rig, binaries, chosen.repeats))
    except (Trouble, OSError, subprocess.SubprocessError) as trouble:
        sys.exit(str(trouble))


def count(rig, binaries, repeats):
    """For each route and binary, the repeats: instructions per request and each function's share."""
    found = {(route, number): [] for route in ROUTES for number in range(len(binaries))}
    for repeat in range(repeats):
        for (route, number), counts in found.items():
            print(f"repeat {repeat + 1} of {repeats}: {route}, commit {'AB'[number]}", file=sys.stderr, flush=True)
            rig.cloakroom = binaries[number]
            counts.append(callgrind.per_request(rig, ROUTES[route]))
    return found


def report(chosen, commits, found):
    print(f"Instructions per request, user space, HTTP/1.1: A is {chosen.before} ({commits[0][:10]}), B is {chosen.after} ({commits[1][:10]}).\n")
    print("| route | A | B | B ÷ A | repeats of A | of B |\n| --- | --: | --: | --: | --: | --: |")
    for route in ROUTES:
        totals = [[total for total, _ in found[route, number]] for number in (0, 1)]
        a, b = map(mean, totals)
        apart = [f"± {(max(one) - min(one)) / 2 / mean(one):.1%}" if len(one) > 1 else "–" for one in totals]
        print(f"| {route} | {a:,.0f} | {b:,.0f} | **{b / a:.3f}** | {apart[0]} | {apart[1]} |")
    for route in ROUTES:
        total, each = found[route, 1][-1]
        print(f"\nThe ten dearest functions of B, {route} (own cost, instructions per request; A's beside it):\n")
        print("| B | of all | A | function |\n| --: | --: | --: | --- |")
        for name, own in each.most_common(10):
            print(f"| {own:,.0f} | {own / total:.1%} | {found[route, 0][-1][1][name]:,.0f} | `{name[:140]}` |")


if __name__ == "__main__":
    main()
