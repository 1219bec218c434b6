"""Loads: as much as goes (wrk, h2load, closed_loop.rs) and a fixed rate (fixed_rate.rs), each answer checked."""

import json
import re
import subprocess
import time

from dataclasses import dataclass

from processes import Trouble, busy
from rig import EXAMPLES, SUT_CORE

FIXED_RATE_CONNECTIONS = 16
MESSAGE = 1024  # bytes


@dataclass(frozen=True)
class Load:
    """As much as goes: with which generator, on how many connections of how many streams each."""

    tool: str
    connections: int
    streams: int = 1


WRK, H2LOAD, CLOSED_LOOP = Load("wrk", 64), Load("h2load", 16, 8), Load("closed_loop", 16)


def find(pattern, text):
    found = re.search(pattern, text, re.M)
    if not found:
        raise Trouble(f"no {pattern} in what the load generator says: {text[-500:]}")
    return found.groups()


def read_wrk(text):
    """Requests answered, seconds, and how many of those were no 2xx or 3xx or failed."""
    # Anchored: the lines about latencies have such numbers too.
    requests, seconds, unit = find(r"^ *(\d+) requests in ([\d.]+)(s|m),", text)
    wrong = sum(int(n) for n in re.findall(r"^ *Non-2xx or 3xx responses: (\d+)", text, re.M))
    for errors in re.findall(r"^ *Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text, re.M):
        wrong += sum(map(int, errors))
    return int(requests), float(seconds) * (60 if unit == "m" else 1), wrong


def read_h2load(text):
    """The same; here 3xx counts as wrong."""
    seconds, unit = find(r"^finished in ([\d.]+)(ms|s|m),", text)
    done, succeeded, good = map(int, find(r"^requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded[^\n]*\nstatus codes: (\d+) 2xx", text))
    return done, float(seconds) * {"ms": 0.001, "s": 1, "m": 60}[unit], done - min(succeeded, good)


def headers(sut, option):
    return [part for name, value in sut.headers.items() for part in (option, f"{name}: {value}")]


def run(command, seconds, meanwhile=lambda: None):
    """Runs a load to its end, which may be `seconds` late at most; `meanwhile` is called in its last quarter."""
    load = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        time.sleep(seconds * 0.8)
        meanwhile()
        out, err = load.communicate(timeout=seconds * 1.5 + 20)
    except BaseException:
        load.kill()
        load.communicate()
        raise
    if load.returncode:
        raise Trouble(f"{command[0]} ended with {load.returncode}: {err.decode()[-500:]}")
    return out.decode()


def read_own(text):
    """The same, of what closed_loop.rs says: there each answer's body counts."""
    outcome = json.loads(text)
    return outcome["answered"], outcome["seconds"], outcome["wrong"] + outcome["failed"]


def command(sut, load, seconds, files, certificate):
    """The load generator's command line, how to read what it says, and how many requests it may leave unanswered."""
    if load.tool == "wrk":
        return ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "5s", *headers(sut, "-H"), sut.url], read_wrk, load.connections
    if load.tool == "h2load":
        most = load.connections * load.streams
        return ["h2load", "-t1", f"-c{load.connections}", f"-m{load.streams}", "-D", seconds, *headers(sut, "-H"), sut.url], read_h2load, most
    what = ["--messages", MESSAGE] if sut.way.answer is None else ["--answer", files / sut.way.what]
    if load.tool == "post":
        return ["h2load", "--h1", "-t1", f"-c{load.connections}", "-D", seconds, "-d", files / "orders", *headers(sut, "-H"), sut.url], read_h2load, load.connections
    own = [EXAMPLES / "closed_loop", "--connections", load.connections, "--seconds", seconds, *what, *asked(sut, files, certificate)]
    return own, read_own, 0


def asked(sut, files, certificate):
    """What both of our own generators are told about each request."""
    return [*(["--http2"] if sut.way.http2 else []), *(["--upload", files / "big"] if sut.way.what == "upload" else []),
            "--ca", certificate, *headers(sut, "--header"), sut.url]


def saturate(rig, sut, load, seconds, with_redis=False):
    """As many requests as go in so many seconds, and what they cost."""
    line, read, most = command(sut, load, seconds, rig.files, rig.certificate)
    memory, redis = [], rig.redis if with_redis else None
    before = sut.process.cpu(), sum(redis.cpu()) if redis else 0, busy(SUT_CORE)
    text = run(line, seconds, lambda: memory.append(sut.process.pss()))
    busy_after = busy(SUT_CORE)
    reached = sut.settle()
    after = sut.process.cpu(), sum(redis.cpu()) if redis else 0
    requests, took, wrong = read(text)
    judge(requests, wrong, reached, most)
    # What was under way when the load ended has cost as much as the rest, so it counts here.
    each = 1e6 / (reached or requests)
    user, system = ((end - begin) * each for begin, end in zip(before[0], after[0]))
    core = (user + system) / each / took
    return {
        "requests": requests, "per_second": requests / took, "cpu_us": user + system, "user_us": user, "system_us": system,
        "redis_us": (after[1] - before[1]) * each, "core": core,
        "others": None if sut.way.cores else max(0, (busy_after - before[2]) / took - core), "pss": memory[0],
    }


def fixed_rate(rig, sut, seconds, rate):
    """Latencies at a moderate rate, from the moment at which each request was due."""
    text = run(
        [EXAMPLES / "fixed_rate", "--rate", rate, "--connections", FIXED_RATE_CONNECTIONS, "--seconds", seconds, "--bytes", len(sut.way.answer),
         *asked(sut, rig.files, rig.certificate)], seconds)
    outcome = json.loads(text)
    judge(outcome["answered"], outcome["wrong"] + outcome["failed"], sut.settle(), FIXED_RATE_CONNECTIONS if outcome["late"] else 0)
    return {"answered": outcome["answered"], "kept_up": not outcome["late"], "p50_us": outcome["p50_us"], "p99_us": outcome["p99_us"]}


def judge(requests, wrong, reached, under_way):
    """Every request must have been answered well, and by the upstream if there is one: wrk takes a redirect to the login for an answer."""
    if not requests:
        raise Trouble("no request was answered")
    if wrong:
        raise Trouble(f"{wrong} of {requests} answers were wrong")
    if reached is not None and not requests <= reached <= requests + under_way:
        raise Trouble(f"{requests} requests were answered, but {reached} reached the upstream")
