"""What the figures were taken on: the machine, the versions of everybody, and how quiet it was."""

import os
import platform
import re
import subprocess
from pathlib import Path

from load import CONNECTIONS, STREAMS
from rig import ROOT


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


def describe(chosen, results, load_before, seconds):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    system = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    commit = output("git", "rev-parse", "--short", "HEAD").strip()
    changed = ", with changes" if output("git", "status", "--porcelain", "--", "src", "Cargo.toml", "Cargo.lock").strip() else ""
    workers = {one["workers"] for (_, row), rounds in results.items() for one in rounds if one["workers"]}
    versions = {
        "cloakroom": version(r"cloakroom (\S+)", str(ROOT / "target/release/cloakroom"), "--version") + f" ({commit}{changed})",
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
    others = sorted(one["others"] for rounds in results.values() for one in rounds)
    lines = [
        f"{chosen.rounds} rounds of {chosen.seconds} s per load, all rows in turn; medians; {seconds / 60:.0f} min. "
        f"HTTP/1.1: wrk, {CONNECTIONS['wrk']} connections; HTTP/2: h2load, {CONNECTIONS['h2load']} connections of {STREAMS} streams; "
        f"p50 and p99: {chosen.rate}/s on {CONNECTIONS['fixed_rate']} connections.",
        f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, kernel {platform.release()}, {system[1] if system else ''}. "
        + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".",
    ]
    if workers:
        lines.append(f"cloakroom, kept on one core like all the others, ran {' or '.join(map(str, sorted(workers)))} tokio worker(s).")
    if others:
        lines.append(
            f"Load average before: {load_before:.2f}. While a row was measured others took {others[len(others) // 2]:.0%} of its core at the median, {others[-1]:.0%} at most.")
        if others[-1] > 0.1:
            lines.append("**The machine was not quiet: these figures are good for nothing but a look.**")
    return "\n" + "\n\n".join(lines)
