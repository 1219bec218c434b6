"""The benchmark's table: rows, rounds, medians. tests/bench/README.md says how to run and read it."""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import load
import machine
import table
from processes import Trouble
from rig import ROOT, Rig, end_in_order, step_aside

# The protocols by which the load comes: their title, TLS, HTTP/2.
PROTOCOLS = {"h1": ("HTTP/1.1", False, False), "h2c": ("HTTP/2, clear", False, True), "tls": ("TLS, HTTP/1.1", True, False), "h2": ("TLS, HTTP/2", True, True)}
# Each row: what it is called, how it is started, which protocols it is measured with. nginx is the base of the ratios.
ROWS = {
    "upstream": ("upstream alone", Rig.alone, ["h1"]),
    "nginx": ("nginx, plain proxy", Rig.nginx, ["h1", "h2c", "tls", "h2"]),
    "haproxy": ("haproxy, plain proxy", Rig.haproxy, ["h1"]),
    "apache": ("apache + mod_auth_openidc, Redis", Rig.apache, ["h1"]),
    "open": ("cloakroom, open route", Rig.open_route, ["h1", "h2c", "tls", "h2"]),
    "memory": ("cloakroom, session in memory", Rig.memory, ["h1", "h2c", "tls", "h2"]),
    "redis": ("cloakroom, session in Redis", Rig.in_redis, ["h1", "h2c", "tls", "h2"]),
    "uncached": ("cloakroom, session in Redis, `cache: off`", Rig.in_redis_uncached, ["h1"]),
}
IN_REDIS = {"apache", "redis", "uncached"}


def arguments():
    parser = argparse.ArgumentParser(description="Measures cloakroom beside its peers and prints one table.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each row is measured, in turn with all others (default 3)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each load (default 4)")
    parser.add_argument("--rate", type=int, default=2000, help="requests per second for the latencies (default 2000)")
    parser.add_argument("--only", nargs="+", metavar="ROW[/PROTOCOL]", help=f"rows: {' '.join(ROWS)}; protocols: {' '.join(PROTOCOLS)}; or /PROTOCOL")
    parser.add_argument("--quick", action="store_true", help="one round of one second: shows that the benchmark works, not how fast anything is")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds = chosen.seconds = 1
    if min(chosen.rounds, chosen.rate) < 1 or not 1 <= chosen.seconds <= 10:
        # nginx ends a connection after 50,000 requests, and h2load then gives that connection up: ten seconds stay below that.
        parser.error("--rounds and --rate are at least 1, --seconds is from 1 to 10")
    every = [(protocol, row) for protocol in PROTOCOLS for row, (_, _, protocols) in ROWS.items() if protocol in protocols]
    chosen.cases = [case for case in every if not chosen.only or any(matches(case, wanted) for wanted in chosen.only)]
    for wanted in chosen.only or []:
        if not any(matches(case, wanted) for case in every):
            parser.error(f"--only {wanted} is no row; rows are {' '.join(ROWS)}, protocols {' '.join(PROTOCOLS)}")
    return chosen


def matches(case, wanted):
    row, _, protocol = wanted.partition("/")
    return row in ("", case[1]) and protocol in ("", case[0])


def measure(rig, protocol, row, chosen):
    """One row in one round: a fresh process, a warm-up, a load as high as goes, one at a fixed rate."""
    _, tls, http2 = PROTOCOLS[protocol]
    with contextlib.ExitStack() as stack:
        sut = ROWS[row][1](rig, stack, tls, http2)
        load.saturate(sut, http2, 1)
        found = load.saturate(sut, http2, chosen.seconds, rig.redis if row in IN_REDIS else None)
        found |= load.fixed_rate(sut, http2, chosen.seconds, chosen.rate, rig.certificate)
        found["workers"] = sut.process.threads("tokio-rt-worker")
    return found


def main():
    chosen = arguments()
    end_in_order()
    step_aside()
    before, began = machine.load_average(), time.monotonic()
    results, invalid = {case: [] for case in chosen.cases}, {}
    with tempfile.TemporaryDirectory(prefix="cloakroom-bench-") as run, Rig(Path(run), ROOT / "target/release/cloakroom") as rig:
        rig.begin()
        for number in range(1, chosen.rounds + 1):
            for case in chosen.cases:
                if case in invalid:
                    continue
                print(f"round {number} of {chosen.rounds}: {'/'.join(reversed(case))}", file=sys.stderr, flush=True)
                try:
                    results[case].append(measure(rig, *case, chosen))
                except (Trouble, OSError, subprocess.SubprocessError) as trouble:
                    invalid[case] = str(trouble)
                    print(f"INVALID {'/'.join(reversed(case))}: {trouble}", file=sys.stderr, flush=True)
    titles = {protocol: title for protocol, (title, _, _) in PROTOCOLS.items()}
    names = {row: name for row, (name, _, _) in ROWS.items()}
    print(table.write(titles, names, results, invalid))
    print(machine.describe(chosen, results, before, time.monotonic() - began))
    sys.exit(1 if invalid else 0)


if __name__ == "__main__":
    main()
