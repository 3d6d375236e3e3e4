"""Renders the results of benches/run as Markdown tables; `tables.py bench.json` does it again.
`tables.py --brief bench.json` prints the tables of docs/performance.md: medians alone.
"""

import json
import statistics
import sys

# Each gateway is compared with the raw relay on the same interface, its lower bound, and with nginx; each epoll server
# also with its counterpart on io_uring.
COMPARED = (
    ("uakari", "relay"),
    ("uakari-epoll", "relay-epoll"),
    ("uakari", "nginx"),
    ("uakari-epoll", "nginx"),
    ("uakari-epoll", "uakari"),
    ("relay-epoll", "relay"),
    ("uakari-tls", "uakari"),
    ("direct-tls", "uakari-tls"),
    ("uakari-tls", "nginx-tls"),
    ("uakari-tls", "haproxy-tls"),
    ("uakari-epoll-tls", "nginx-tls"),
    ("uakari-epoll-tls", "uakari-tls"),
)


def render(results):
    """All tables of one run of the benchmark."""
    runs = [run for run in results["runs"] if "error" not in run]
    rounds = 1 + max((run["round"] for run in runs), default=0)
    parts = [
        f"{results['machine']}; rounds: {rounds}, of {results['seconds']:g} s; medians (least–most).",
        *([floor_table(runs, results["floor"])] if "floor" in results else [figures_table(runs), *comparisons(runs)]),
        memory_table(results["memory"]),
        failures(results["runs"]),
    ]
    return "\n\n".join(part for part in parts if part)


def brief(results):
    """The CPU time of the gateways and its ratios, as medians without spreads."""
    runs = [run for run in results["runs"] if "error" not in run]
    servers = names(runs, "server")
    rows = []
    for workload in names(runs, "workload"):
        chosen = [select(runs, workload, server) for server in servers]
        cells = [number(median_cpu(some)) if some else "-" for some in chosen]
        rows.append([workload, *cells])
    parts = [
        table(["workload", *(f"{server} µs" for server in servers)], rows),
        comparison(runs, "workload", "/", lambda both: number(statistics.median(ratios(both)))),
    ]
    return "\n\n".join(part for part in parts if part)


def median_cpu(chosen):
    return statistics.median(run["cpu_gateway_us"] for run in chosen)


def table(head, rows):
    """A Markdown table, or nothing if it has no rows."""
    if not rows:
        return ""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figures_table(runs):
    head = ["workload", "server", "CPU µs a message", "with backend", "messages/s", "p50 µs", "p99 µs"]
    rows = []
    for workload in names(runs, "workload"):
        for server in names(runs, "server"):
            chosen = select(runs, workload, server)
            if chosen:
                rows.append([workload, server, *figures(chosen)])
    return table(head, rows)


def figures(chosen):
    return [
        median_and_spread([run["cpu_gateway_us"] for run in chosen]),
        median_and_spread([run["cpu_all_us"] for run in chosen]),
        *flow(chosen),
    ]


def flow(chosen):
    """The rate and the latencies."""
    rate = statistics.median(run["rate"] for run in chosen)
    return [
        f"{rate:,.0f}",
        number(statistics.median(run["p50_us"] for run in chosen)),
        number(statistics.median(run["p99_us"] for run in chosen)),
    ]


def floor_table(runs, floor):
    """All servers beside the one that does the least."""
    head = ["workload", "server", "CPU µs a message", "of it uakari", f"/ {floor}", "messages/s", "p50 µs", "p99 µs"]
    rows = []
    for workload in names(runs, "workload"):
        for server in names(runs, "server"):
            if chosen := select(runs, workload, server):
                cpu = median_and_spread([run["cpu_all_us"] for run in chosen])
                share = number(statistics.median(run["cpu_gateway_us"] for run in chosen))
                both = pairs(runs, workload, server, floor)
                ratio = median_and_spread(ratios(both, "cpu_all_us")) if both else "-"
                rows.append([workload, server, cpu, share, ratio, *flow(chosen)])
    return table(head, rows)


def comparisons(runs):
    """Four tables. Values are compared within a round, where the neighbours were most alike."""
    return [
        comparison(runs, "CPU of the gateway", "/", lambda both: median_and_spread(ratios(both))),
        comparison(runs, "CPU with backend", "/", lambda both: median_and_spread(ratios(both, "cpu_all_us"))),
        comparison(runs, "messages/s", "/", lambda both: median_and_spread(ratios(both, "rate"))),
        comparison(runs, "p50 in µs", "−", latency_difference),
    ]


def comparison(runs, title, operator, cell):
    """A table of one figure: a row for each workload, a column for each two servers."""
    measured = set(names(runs, "server"))
    compared = [pair for pair in COMPARED if measured.issuperset(pair)]
    if not compared:
        return ""
    rows = []
    for workload in names(runs, "workload"):
        cells = [pairs(runs, workload, *pair) for pair in compared]
        rows.append([workload, *(cell(both) if both else "-" for both in cells)])
    return table([title, *(f"{subject} {operator} {other}" for subject, other in compared)], rows)


def latency_difference(both):
    return f"{statistics.median(one['p50_us'] - two['p50_us'] for one, two in both):+.1f}"


def pairs(runs, workload, subject, other):
    """The runs of both within the same rounds."""
    ours = {run["round"]: run for run in select(runs, workload, subject)}
    theirs = {run["round"]: run for run in select(runs, workload, other)}
    return [(ours[turn], theirs[turn]) for turn in ours.keys() & theirs.keys()]


def ratios(both, key="cpu_gateway_us"):
    return [one[key] / two[key] for one, two in both]


def memory_table(memory):
    """Pss of the gateway's processes."""
    head = [
        "server",
        "Pss, nothing connected",
        "idle clients",
        "bytes an idle client",
        "bytes each further one",
        "binary",
    ]
    rows = [
        [
            server,
            f"{figures['pss_empty'] / 2**20:.2f} MiB",
            str(figures["clients"]),
            f"{figures['growth_per_client']:,.0f}",
            f"{figures['growth_per_further_client']:,.0f}",
            f"{figures['binary_size'] / 1e3:,.0f} kB",
        ]
        for server, figures in memory.items()
    ]
    return table(head, rows)


def failures(runs):
    failed = [run for run in runs if "error" in run]
    return "\n".join(f"FAILED: round {run['round'] + 1}, {run['workload']}, {run['server']}" for run in failed)


def names(runs, key):
    """The values of `key` in order of appearance."""
    return list(dict.fromkeys(run[key] for run in runs))


def select(runs, workload, server):
    return [run for run in runs if run["workload"] == workload and run["server"] == server]


def median_and_spread(values):
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))}–{number(max(values))})"


def number(value):
    """Three significant digits, at least."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3f}" if value < 1 else f"{value:.2f}"


if __name__ == "__main__":
    *options, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        print((brief if options == ["--brief"] else render)(json.load(file)))
