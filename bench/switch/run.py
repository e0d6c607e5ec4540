#!/usr/bin/env python3
"""Compares the switch's frames a second with vde_switch's, all sides in turn in one run: see bench/README.md.

Exit status: 0 when everything was measured, 1 when not. Missing the gate is no failure of a run."""
import argparse
import collections
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
GATE = 2.0
PEER = "vde_switch"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/src/net_bench")
    options = parser.parse_args()
    run = subprocess.run([str(options.program), "--benchmark_filter=(switch|firewall)/", "--benchmark_format=json", "--benchmark_min_time=0.5",
                          f"--benchmark_repetitions={options.rounds}", "--benchmark_enable_random_interleaving=true"],
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    rates, problems = collections.defaultdict(list), set()
    for each in json.loads(run.stdout)["benchmarks"]:
        if each.get("error_occurred"):
            problems.add(f"{each['run_name']}: {each['error_message']}")
        elif each["run_type"] == "iteration":
            side, size = each["name"].split("/")[:2]
            rates[side, int(size)].append(each["items_per_second"])
    print(f"{'':<20} {'bytes':>6} {'frames a second: median (min..max)':>42} {'against ' + PEER:>20}")
    for (side, size), values in sorted(rates.items(), key=lambda item: (item[0][1], item[0][0])):
        median, peer = statistics.median(values), rates.get((PEER, size))
        ratio = median / statistics.median(peer) if peer else None
        against = "" if ratio is None or side == PEER else f"{ratio:.2f} (gate {GATE:g}: {'met' if ratio >= GATE else 'missed'})"
        print(f"{side:<20} {size:>6} {median:>16,.0f} ({min(values):,.0f}..{max(values):,.0f}) {against:>26}")
    for problem in sorted(problems):
        print(problem)
    return 1 if problems or not rates else 0


if __name__ == "__main__":
    sys.exit(main())
