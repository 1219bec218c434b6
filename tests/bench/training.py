"""Runs a binary that counts its branches through all kinds of load, and leaves the counts in a folder. tests/bench/train uses it."""

import contextlib
import sys
import tempfile
from pathlib import Path

import load
import processes
from groups import GROUPS, Group, Row
from load import Load
from processes import Trouble
from rig import Rig, end_in_order, step_aside

# What people do most weighs most: a session that is cached, over HTTP/1.1 and HTTP/2, in clear and over TLS.
LOADS = {
    "h1": ["open", "memory", "redis", "uncached"], "h2c": ["redis"], "tls": ["redis"], "h2": ["redis"], "big": ["redis"], "bigh2": ["redis"],
    "upload": ["redis"], "socket": ["redis"], "file": ["files"], "bigfile": ["files"], "two": ["redis"],
}
# And what is not measured.
OTHERS = [
    Group("small uploads", {"redis": Row("cloakroom, session in Redis", Rig.in_redis)}, load=Load("post", 64)),
    Group("over HTTP/2 to the upstream", {"h2c": Row("cloakroom, session in Redis", Rig.over_h2c)}, rate=0),
    Group("forward-auth", {"asked": Row("cloakroom, session in Redis", Rig.forward_auth)}),
]
SECONDS, RATE, PATIENCE = 3, 1000, 30


def main():
    binary, counts = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    end_in_order()
    step_aside()
    # Where it leaves its counts when it ends: a file for each process.
    processes.EXTRA["LLVM_PROFILE_FILE"] = f"{counts}/%p.profraw"
    with tempfile.TemporaryDirectory(prefix="cloakroom-bench-") as folder, Rig(Path(folder), binary) as rig:
        rig.begin()
        for name, rows in LOADS.items():
            for row in rows:
                train(rig, GROUPS[name], GROUPS[name].rows[row])
        for group in OTHERS:
            for row in group.rows.values():
                train(rig, group, row)


def train(rig, group, row):
    print(f"{row.name}, {group.title}", file=sys.stderr, flush=True)
    with rig.arranged(group.way), contextlib.ExitStack() as stack:
        sut = group.start(rig, stack, row)
        load.saturate(rig, sut, group.load, SECONDS)
        # Where requests come one by one other ways are taken: to sleep, and out of it.
        if group.rate is not None:
            load.fixed_rate(rig, sut, SECONDS, group.rate or RATE)
        sut.process.stop(PATIENCE)
        if sut.process.child.returncode != 0:
            raise Trouble(f"cloakroom ended with {sut.process.child.returncode}, so its counts are lost")


if __name__ == "__main__":
    try:
        main()
    except Trouble as trouble:
        sys.exit(str(trouble))
