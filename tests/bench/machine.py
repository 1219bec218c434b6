"""What the figures were taken on: the machine, the versions of everybody, and how quiet it was."""

import os
import platform
import re
import subprocess
from pathlib import Path

from groups import BIG_RATE
from load import CLOSED_LOOP, FIXED_RATE_CONNECTIONS, H2LOAD, WRK
from rig import ALLOWED, ROOT


def load_average():
    return os.getloadavg()[0]


def output(*command):
    """What a command prints, on either stream."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=20)
    except FileNotFoundError:
        return ""
    return done.stdout + done.stderr


def version(pattern, *command):
    found = re.search(pattern, output(*command))
    return found[1] if found else "?"


def describe(chosen, results, load_before, seconds, short=False):
    """All that; in short without the commit, for a text that outlives it."""
    system = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    kernel = re.match(r"[\d.]*\d", platform.release())
    commit = output("git", "rev-parse", "--short", "HEAD").strip()
    changed = ", with changes" if output("git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock", "deploy/Dockerfile", "deploy/cloakroom.profdata").strip() else ""
    versions = {
        "cloakroom": version(r"cloakroom (\S+)", str(chosen.binary.resolve()), "--version") + ("" if short else f" ({commit}{changed})"),
        "nginx": version(r"nginx/(\S+)", "nginx", "-v"),
        "haproxy": version(r"version (\S+)", "haproxy", "-v"),
        "apache": version(r"Apache/(\S+)", "apache2", "-v"),
        "mod_auth_openidc": version(r"(\S+)", "dpkg-query", "-Wf", "${Version}", "libapache2-mod-auth-openidc"),
        "Redis": version(r"v=(\S+)", "redis-server", "--version"),
        "wrk": version(r"wrk (\S+)", "wrk", "-v"),
        "h2load": version(r"nghttp2/(\S+)", "h2load", "--version"),
        "OpenSSL": version(r"OpenSSL (\S+)", "openssl", "version"),
        "Node": version(r"v(\S+)", "node", "--version"),
    }
    others = sorted(one["others"] for rounds in results.values() for one in rounds if one.get("others") is not None)
    lines = [
        f"Rounds: {chosen.rounds}, in each of which all that are compared start afresh and are loaded in turn, {chosen.turns} times {chosen.seconds} s; "
        f"medians, of ratios inside the turns; {seconds / 60:.0f} min. "
        f"HTTP/1.1: wrk, {WRK.connections} connections; HTTP/2: h2load, {H2LOAD.connections} connections of {H2LOAD.streams} streams; 1 MB: "
        f"{CLOSED_LOOP.connections} connections, every byte compared; p50 and p99: {chosen.rate}/s ({BIG_RATE}/s of 1 MB) on {FIXED_RATE_CONNECTIONS} connections.",
        f"{os.cpu_count()} cores ({platform.machine()}), kernel {kernel[0] if kernel else '?'}, {system[1] if system else ''}. "
        + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
        "cloakroom as its image has it: arranged by counts that were taken under loads of these kinds, which makes a request about a sixth cheaper. "
        "The others as Debian has them.",
    ]
    if any(case[0] == "two" for case in results) and not {2, 3} <= ALLOWED:
        lines.append("On one core and on two: the load generator, the upstream and Redis ran there as well, for want of other cores.")
    if others:
        middle, high = others[len(others) // 2], others[len(others) * 9 // 10]
        lines.append(
            f"Load average before: {load_before:.2f}. While a row was measured others took {middle:.0%} of its core at the median, less than {high + 0.005:.0%} nine times in ten.")
        if high > 0.1:
            lines.append("**The machine was not quiet: these figures are good for nothing but a look.**")
    return "\n" + "\n\n".join(lines)
