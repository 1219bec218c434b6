"""Instructions per request of one binary, by function: callgrind counts them for few and for many requests."""

import contextlib
import re
import subprocess
from collections import Counter

from load import read_h2load, headers
from processes import Trouble
from rig import MEMORY, Way

ROUTES = {
    "open route": lambda rig, stack, wrapper: rig.start_cloakroom(stack, Way(), MEMORY, wrapper=wrapper),
    "session in memory": lambda rig, stack, wrapper: rig.start_cloakroom(stack, Way(), MEMORY, prefix="/private/", wrapper=wrapper),
    "session in Redis": lambda rig, stack, wrapper: rig.start_cloakroom(stack, Way(), rig.redis_store(), prefix="/private/", wrapper=wrapper),
}
# So far apart that it does not matter by how much one start and login differ from another: some millions of instructions.
FEW, MANY, CONNECTIONS = 1000, 21000, 8
# Under valgrind everything takes some fifty times as long.
PATIENCE = 120


def per_request(rig, recipe):
    """What one request costs: all in all, and each function's own share. Start, login and stop are in both counts and cancel out."""
    few, many = (count(rig, recipe, requests) for requests in (FEW, MANY))
    each = Counter({name: (many[name] - few[name]) / (MANY - FEW) for name in many | few})
    return sum(each.values()), each


def measure(rig, _stack, _group, _row, _chosen):
    """Of one row of the benchmark: a cached session in Redis."""
    total, _ = per_request(rig, ROUTES["session in Redis"])
    return {"instructions": total}


def count(rig, recipe, requests):
    """The instructions of one process that answers so many requests, by function."""
    profile = rig.run / "callgrind.out"
    wrapper = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}"]
    with contextlib.ExitStack() as stack:
        sut = recipe(rig, stack, wrapper)
        command = ["h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"-n{requests}", *headers(sut, "-H"), sut.url]
        done, _, wrong = read_h2load(subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout)
        reached = sut.settle()
        if (done, wrong, reached) != (requests, 0, requests):
            raise Trouble(f"of {requests} requests {done} were answered, {wrong} of them wrongly, and {reached} reached the upstream")
        sut.process.stop(PATIENCE)
    return read(profile.read_text())


def read(text):
    """Each function's own cost, out of callgrind's file, whose names are written once and then only numbered."""
    names, costs, function, called = {}, Counter(), None, False
    for line in text.splitlines():
        if line.startswith("fn="):
            number, name = re.match(r"fn=\((\d+)\)(?: (.*))?", line).groups()
            if name:
                names[number] = plain(name)
            function = names[number]
        elif line.startswith("cfn="):
            number, name = re.match(r"cfn=\((\d+)\)(?: (.*))?", line).groups()
            if name:
                names[number] = plain(name)
        elif line.startswith("calls="):
            called = True  # the next line is what the called function cost, which is counted where that stands
        elif line[:1] in tuple("0123456789+-*"):
            if not called:
                costs[function] += int(line.split()[1])
            called = False
    total = int(re.search(r"^totals: (\d+)", text, re.M)[1])
    if sum(costs.values()) != total:
        raise Trouble(f"callgrind's file was not understood: it has {total} instructions, {sum(costs.values())} were found")
    return costs


def plain(name):
    """Without the hash that rustc appends and callgrind's mark of a recursion."""
    return re.sub(r"(::h[0-9a-f]{16})?('\d+)?$", "", name)
