"""Medians over the turns, ratios inside them, and the markdown."""

from statistics import median, quantiles

HEAD = [
    "case", "requests", "CPU µs/req", "user / sys", "spread", "× nginx", "req/s", "× nginx", "core", "Redis µs/req", "p50 µs", "p99 µs", "× nginx", "PSS MB",
]
# Those for the README.
SHORT = [0, 2, 5, 6, 10, 11, 12, 13]
IDLE = ["connections that have asked once", "MB before", "KB each", "connections then gone", "MB when gone", "÷ before"]
# A difference below this is nothing.
NOTHING = 0.08


def spread(values):
    """How far apart the middle half of the turns is, of their median."""
    if len(values) < 2 or not median(values):
        return 0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / median(values)


def ratio(rounds, base, key):
    """The median of the ratios inside each turn: what else the machine did then hit both. None without a base."""
    pairs = [(one[key], other[key]) for one, other in zip(rounds, base)]
    return median(a / b for a, b in pairs if b) if any(b for _, b in pairs) else None


def shown(number):
    return "–" if number is None else f"{number:.2f}"


def middle(rounds, key):
    return median(one[key] for one in rounds)


def with_latencies(turns):
    """Of all turns those that have them: the last one of each round."""
    return [one for one in turns if "kept_up" in one]


def cells(name, rounds, base):
    """One row under full load, in the order of HEAD."""
    latencies = ["–", "–", "–"]
    timed, base_timed = with_latencies(rounds), with_latencies(base)
    if timed:
        latencies = ["late", "late", "–"]
        if all(one["kept_up"] for one in timed):
            both = [one["kept_up"] for one in base_timed]
            ratios = [ratio(timed, base_timed if all(both) else [], key) for key in ("p50_us", "p99_us")]
            latencies = [f"{middle(timed, 'p50_us'):,.0f}", f"{middle(timed, 'p99_us'):,.0f}", f"{shown(ratios[0])} / {shown(ratios[1])}"]
    redis = middle(rounds, "redis_us")
    return [
        name, f"{sum(one['requests'] + one.get('answered', 0) for one in rounds):,}",
        f"**{middle(rounds, 'cpu_us'):,.1f}**", f"{middle(rounds, 'user_us'):,.1f} / {middle(rounds, 'system_us'):,.1f}",
        f"{spread([one['cpu_us'] for one in rounds]):.0%}", shown(ratio(rounds, base, "cpu_us")),
        f"{middle(rounds, 'per_second'):,.0f}", shown(ratio(rounds, base, "per_second")), f"{middle(rounds, 'core'):.0%}",
        f"{redis:.1f}" if redis else "–", *latencies, f"{middle(rounds, 'pss') / 1e6:.1f}",
    ]


def idle_cells(name, rounds, title):
    """One row of connections that wait, in the order of IDLE."""
    one = rounds[0]
    left = [str(2 * one["crowd"]), f"{middle(rounds, 'gone') / 1e6:.1f}", f"{middle(rounds, 'gone_ratio'):.2f}"] if "gone" in one else ["–"] * 3
    return [f"{name}, {title}", f"{middle(rounds, 'before') / 1e6:.1f}", f"**{middle(rounds, 'idle') / 1024:.1f}**", *left]


def line(words):
    return f"| {' | '.join(words)} |"


def heads(words):
    return [line(words), line(["---", *["--:"] * (len(words) - 1)])]


def write(groups, results, invalid, columns=range(len(HEAD))):
    """Both tables. Rows of one group stand together, and their ratios are to that group's nginx."""
    loads, waits = [], []
    for group, about in groups.items():
        cases = [case for case in results if case[0] == group]
        nginx = (group, "nginx")
        base = [] if nginx in invalid else results.get(nginx, [])
        good = [case for case in cases if case not in invalid and results[case]]
        if any("cpu_us" in results[case][0] for case in good) or any(case in invalid for case in cases):
            loads.append(line([f"*{about.title}*", *[""] * (len(columns) - 1)]))
        for case in cases:
            name = about.rows[case[1]].name
            if case in invalid:
                loads.append(line([name, "**INVALID**", *[""] * (len(columns) - 2)]))
            elif case in good and "cpu_us" in results[case][0]:
                all_of_it = cells(name, results[case], base)
                loads.append(line([all_of_it[column] for column in columns]))
            elif case in good and "idle" in results[case][0]:
                waits.append(line(idle_cells(name, results[case], about.title)))
    lines = []
    if loads:
        lines += [*heads([HEAD[column] for column in columns]), *loads, ""]
    if waits:
        lines += [*heads(IDLE), *waits, ""]
    lines += [f"INVALID {'/'.join(reversed(case))}: {' '.join(reason.split())}\n" for case, reason in invalid.items()]
    return "\n".join(lines).rstrip()


def short(groups, results):
    """What the README says: fewer columns, and first what is dearer than nginx and what is cheaper."""
    return f"{losses_and_wins(groups, results)}\n\n{write(groups, results, {}, SHORT)}"


def losses_and_wins(groups, results):
    """Each row whose CPU per request differs from nginx's by more than nothing, group by group."""
    dearer, cheaper = {}, {}
    for case, rounds in results.items():
        name, base = groups[case[0]].rows[case[1]].name, results.get((case[0], "nginx"), [])
        found = ratio(rounds, base, "cpu_us") if "cpu_us" in rounds[0] else None
        if found is not None and name.startswith("cloakroom") and abs(found - 1) > NOTHING:
            words = f"{name.removeprefix('cloakroom, ')} ({found:.2f})"
            (dearer if found > 1 else cheaper).setdefault(groups[case[0]].title, []).append(words)
    listed = lambda found: "; ".join(f"{title}: {', '.join(words)}" for title, words in found.items()) or "nothing"
    return (
        f"**More CPU per request than nginx in the same place (× nginx, beyond {NOTHING * 100:.0f} %):** {listed(dearer)}.\n\n"
        f"**Less:** {listed(cheaper)}.")
