"""Prints the medians of one run as a table: table.py FIGURES SELLERS. A line of FIGURES is `who what value`."""
import statistics
import sys
from collections import defaultdict

figures = defaultdict(list)
for line in open(sys.argv[1]):
    who, what, value = line.split()
    figures[who, what].append(float(value))


def median(who, what, divisor=1.0):
    values = figures.get((who, what))
    return f"{statistics.median(values) / divisor:.2f}" if values else "-"


print(f"\n{sys.argv[2]} sellers\n")
print("| | CPU per call, us | calls/s at saturation | p50 at fixed rate, ms | p99 at fixed rate, ms | resident, MiB |")
print("|---|---|---|---|---|---|")
for who in ("upstream", "nginx", "connector"):
    # `cpu` is in hundredths of a microsecond, latencies in microseconds.
    cells = [median(who, "cpu", 100), median(who, "rate"), median(who, "p50", 1000), median(who, "p99", 1000), median(who, "rss")]
    print(f"| {who} | " + " | ".join(cells) + " |")
ratio = statistics.median(figures["connector", "cpu"]) / statistics.median(figures["nginx", "cpu"])
print(f"\nCPU per call, nginx = 1: {ratio:.2f}")
