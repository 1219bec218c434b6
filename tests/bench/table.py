"""Medians over the rounds, ratios inside them, and the markdown."""

from statistics import median

HEAD = (
    "| case | requests | CPU µs/req | user / sys | spread | × nginx | req/s | × nginx | core | Redis µs/req | p50 µs | p99 µs | × nginx | PSS MB |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |"
)
COLUMNS = HEAD.splitlines()[0].count("|") - 1


def spread(values):
    """How far apart the rounds were, of their median."""
    return (max(values) - min(values)) / median(values) if median(values) else 0


def ratio(rounds, base, key):
    """The median of the ratios inside each round: what else the machine did then hit both."""
    pairs = [(one[key], other[key]) for one, other in zip(rounds, base)]
    return f"{median(a / b for a, b in pairs if b):.2f}" if any(b for _, b in pairs) else "–"


def line(name, rounds, base):
    middle = {key: median(one[key] for one in rounds) for key in rounds[0]}
    late = not all(one["kept_up"] for one in rounds)
    cells = [
        name, f"{sum(one['requests'] + one['answered'] for one in rounds):,}",
        f"**{middle['cpu_us']:.1f}**", f"{middle['user_us']:.1f} / {middle['system_us']:.1f}",
        f"{spread([one['cpu_us'] for one in rounds]):.0%}", ratio(rounds, base, "cpu_us"),
        f"{middle['per_second']:,.0f}", ratio(rounds, base, "per_second"), f"{middle['core']:.0%}",
        f"{middle['redis_us']:.1f}" if middle["redis_us"] else "–",
        *(["late", "late", "–"] if late else [
            f"{middle['p50_us']:,.0f}", f"{middle['p99_us']:,.0f}", f"{ratio(rounds, base, 'p50_us')} / {ratio(rounds, base, 'p99_us')}"]),
        f"{middle['pss'] / 1e6:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def write(titles, names, results, invalid):
    """The table. Rows of one protocol stand together, and their ratios are to that protocol's nginx."""
    lines = [HEAD]
    for protocol, title in titles.items():
        cases = [case for case in results if case[0] == protocol]
        if cases:
            lines.append(f"| *{title}* {'| ' * COLUMNS}".rstrip())
        nginx = (protocol, "nginx")
        base = [] if nginx in invalid else results.get(nginx, [])
        for case in cases:
            if case in invalid:
                lines.append(f"| {names[case[1]]} | **INVALID** {'| ' * (COLUMNS - 1)}".rstrip())
            else:
                lines.append(line(names[case[1]], results[case], base))
    lines += [f"\nINVALID {'/'.join(reversed(case))}: {' '.join(reason.split())}" for case, reason in invalid.items()]
    return "\n".join(lines)
