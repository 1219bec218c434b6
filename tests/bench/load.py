"""Loads: as much as goes (wrk, h2load) and a fixed rate (fixed_rate.rs), each answer checked."""

import json
import re
import subprocess
import time

from processes import Trouble, busy
from rig import BODY_LENGTH, ROOT, SUT_CORE

FIXED_RATE = ROOT / "target/release/examples/fixed_rate"
CONNECTIONS = {"wrk": 64, "h2load": 16, "fixed_rate": 16}
STREAMS = 8  # of each of h2load's connections


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


def saturate(sut, http2, seconds, redis=None):
    """As many requests as go in so many seconds, and what they cost."""
    if http2:
        command, read, most = ["h2load", "-t1", f"-c{CONNECTIONS['h2load']}", f"-m{STREAMS}", "-D", seconds], read_h2load, CONNECTIONS["h2load"] * STREAMS
    else:
        command, read, most = ["wrk", "-t1", f"-c{CONNECTIONS['wrk']}", f"-d{seconds}s", "--timeout", "5s"], read_wrk, CONNECTIONS["wrk"]
    memory = []
    before = sut.process.cpu(), sum(redis.cpu()) if redis else 0, busy(SUT_CORE)
    text = run([*command, *headers(sut, "-H"), sut.url], seconds, lambda: memory.append(sut.process.pss()))
    busy_after = busy(SUT_CORE)
    reached = sut.settle()
    after = sut.process.cpu(), sum(redis.cpu()) if redis else 0
    requests, took, wrong = read(text)
    judge(requests, wrong, reached, most)
    # What was under way when the load ended has cost as much as the rest, so it counts here.
    user, system = ((end - begin) / reached * 1e6 for begin, end in zip(before[0], after[0]))
    core = (user + system) * reached / 1e6 / took
    return {
        "requests": requests, "per_second": requests / took, "cpu_us": user + system, "user_us": user, "system_us": system,
        "redis_us": (after[1] - before[1]) / reached * 1e6, "core": core, "others": max(0, (busy_after - before[2]) / took - core),
        "pss": memory[0],
    }


def fixed_rate(sut, http2, seconds, rate, certificate):
    """Latencies at a moderate rate, from the moment at which each request was due."""
    text = run(
        [FIXED_RATE, "--rate", rate, "--connections", CONNECTIONS["fixed_rate"], "--seconds", seconds, "--bytes", BODY_LENGTH,
         *(["--http2"] if http2 else []), "--ca", certificate, *headers(sut, "--header"), sut.url], seconds)
    outcome = json.loads(text)
    judge(outcome["answered"], outcome["wrong"] + outcome["failed"], sut.settle(), CONNECTIONS["fixed_rate"] if outcome["late"] else 0)
    return {"answered": outcome["answered"], "kept_up": not outcome["late"], "p50_us": outcome["p50_us"], "p99_us": outcome["p99_us"]}


def judge(requests, wrong, reached, under_way):
    """Every request must have been answered well, and by the upstream: wrk takes a redirect to the login for an answer."""
    if not requests:
        raise Trouble("no request was answered")
    if wrong:
        raise Trouble(f"{wrong} of {requests} answers were wrong")
    if not requests <= reached <= requests + under_way:
        raise Trouble(f"{requests} requests were answered, but {reached} reached the upstream")
