"""What cloakroom is held to: each target with its gate, which nobody may miss, and its goal; and what a run says about it."""

from dataclasses import dataclass
from statistics import median

from table import with_latencies

NGINX, REDIS, UNCACHED = ("h1", "nginx"), ("h1", "redis"), ("h1", "uncached")


@dataclass(frozen=True)
class Target:
    number: int
    measure: str
    # Which figure of which row, and divided by the same figure of which other row in the same turn, if any.
    key: str
    case: tuple
    base: tuple | None
    gate: float
    goal: float
    # Whether more is better.
    more: bool = False
    shown: str = "{:.2f}"
    unit: float = 1


TARGETS = [
    Target(1, "CPU per request, session cached ÷ nginx", "cpu_us", REDIS, NGINX, 1.45, 1.15),
    Target(2, "CPU per request, Redis read each time ÷ nginx", "cpu_us", UNCACHED, NGINX, 1.80, 1.45),
    Target(3, "CPU per request, TLS, HTTP/1.1 ÷ nginx", "cpu_us", ("tls", "redis"), ("tls", "nginx"), 1.20, 0.95),
    Target(3, "CPU per request, TLS, HTTP/2 ÷ nginx", "cpu_us", ("h2", "redis"), ("h2", "nginx"), 1.25, 1.00),
    Target(4, "CPU per request, mod_auth_openidc ÷ session cached", "cpu_us", ("h1", "apache"), REDIS, 20, 28, True, "{:.1f}"),
    Target(4, "CPU per request, mod_auth_openidc ÷ Redis read each time", "cpu_us", ("h1", "apache"), UNCACHED, 15, 23, True, "{:.1f}"),
    Target(5, "p50 at a fixed rate, session cached ÷ nginx", "p50_us", REDIS, NGINX, 1.20, 1.05),
    Target(5, "p50 at a fixed rate, Redis read each time ÷ nginx", "p50_us", UNCACHED, NGINX, 1.70, 1.45),
    Target(6, "p99 at a fixed rate, session cached ÷ nginx", "p99_us", REDIS, NGINX, 1.5, 1.1),
    Target(7, "CPU per answer of 1 MB, session cached ÷ nginx", "cpu_us", ("big", "redis"), ("big", "nginx"), 0.75, 0.50),
    Target(8, "KB per idle connection, in clear", "idle", ("idle", "open"), None, 20, 4, False, "{:.1f}", 1024),
    Target(8, "KB per idle connection, TLS", "idle", ("idletls", "open"), None, 34, 16, False, "{:.1f}", 1024),
    Target(9, "memory 60 s after 10,000 connections ÷ before them", "gone_ratio", ("idle", "open"), None, 5, 2),
    Target(10, "memory at 256 busy connections ÷ nginx", "pss", ("busy", "redis"), ("busy", "nginx"), 1.6, 1.0),
    Target(11, "instructions per request, session cached", "instructions", ("instructions", "redis"), None, 40_000, 25_000, False, "{:,.0f}"),
    Target(12, "CPU per request, session cached ÷ open route", "cpu_us", REDIS, ("h1", "open"), 1.15, 1.05),
    Target(13, "requests/s, everything on two cores ÷ on one", "per_second", ("two", "redis"), ("one", "redis"), 1.7, 1.9, True),
]
HEAD = "| # | target | found | gate | goal | met |\n| --: | --- | --: | --: | --: | --- |"


def figure(target, results, invalid):
    """The median over the turns, of ratios inside them; none if one of its rows is not there, or no good."""
    cases = [target.case, *([target.base] if target.base else [])]
    if any(case in invalid or not results.get(case) for case in cases):
        return None
    if not target.base:
        return median(one[target.key] for one in results[target.case]) / target.unit
    turns = [results[case] for case in cases]
    if target.key in ("p50_us", "p99_us"):
        turns = [with_latencies(one) for one in turns]
        if not all(turns) or not all(one["kept_up"] for row in turns for one in row):
            return None
    pairs = [(one.get(target.key), other.get(target.key)) for one, other in zip(*turns)]
    # Who did not keep up with the rate has no latencies.
    if not all(one and other for one, other in pairs):
        return None
    return median(one / other for one, other in pairs)


def verdict(target, found):
    if found is None:
        return "not measured"
    reaches = (lambda bound: found >= bound) if target.more else (lambda bound: found <= bound)
    return "goal" if reaches(target.goal) else "gate" if reaches(target.gate) else "**missed**"


def write(results, invalid):
    lines = [HEAD]
    for target in TARGETS:
        found, word = figure(target, results, invalid), "≥" if target.more else "≤"
        shown = "–" if found is None else target.shown.format(found)
        bounds = (f"{word} {target.shown.format(bound)}" for bound in (target.gate, target.goal))
        lines.append(f"| {target.number} | {target.measure} | {shown} | {' | '.join(bounds)} | {verdict(target, found)} |")
    return "\n".join(lines)
