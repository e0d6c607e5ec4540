#!/usr/bin/env python3
"""Compares the switch's frames a second with other switches', all sides in turn in every round: see bench/README.md.

Exit status: 0 when every side that is installed was measured, 1 when not. Missing the gate is no failure of a run."""
import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys

import open_vswitch

ROOT = pathlib.Path(__file__).resolve().parents[2]
GATE = 2.0
OWN = ("bulkhead_switch", "bulkhead_firewall")
PATIENCE_S = 600


class Rates:
    """Frames a second of each side and size, and what went wrong."""

    def __init__(self, program):
        self.program = program
        self.values, self.problems = collections.defaultdict(list), set()

    def measure(self, benchmark, name, ports=()):
        environment = os.environ | {"FORWARDING_BENCH_PORTS": ",".join(str(port) for port in ports)}
        run = subprocess.run([str(self.program), f"--benchmark_filter=^{benchmark}/", "--benchmark_format=json", "--benchmark_min_time=0.5"],
                             env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=PATIENCE_S)
        for each in json.loads(run.stdout)["benchmarks"]:
            if each.get("error_occurred"):
                self.problems.add(f"{name}: {each['error_message']}")
            else:
                self.values[name, int(each["name"].split("/")[1])].append(each["items_per_second"])

    def peers(self, size):
        """Medians of the others at this size, the best one first."""
        medians = [(statistics.median(values), side) for (side, of), values in self.values.items() if of == size and side not in OWN]
        return sorted(medians, reverse=True)


def print_table(rates):
    print(f"{'':<20} {'bytes':>6} {'frames a second: median (min..max)':>42}  against the best other")
    for (side, size), values in sorted(rates.values.items(), key=lambda item: (item[0][1], item[0][0])):
        median, peers, against = statistics.median(values), rates.peers(size), ""
        if side in OWN and peers:
            best, name = peers[0]
            against = f"{median / best:.2f} of {name} (gate {GATE:g}: {'met' if median / best >= GATE else 'missed'})"
        print(f"{side:<20} {size:>6} {median:>18,.0f} ({min(values):,.0f}..{max(values):,.0f})".ljust(72) + against)
    for problem in sorted(rates.problems):
        print(problem)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/src/net_bench")
    options = parser.parse_args()
    rates, missing = Rates(options.program), None
    for _ in range(options.rounds):
        for side in (*OWN, "vde_switch"):
            rates.measure(side, side)
        if missing is not None:
            continue
        try:
            with open_vswitch.running() as ports:
                rates.measure("other_switch", "open_vswitch", ports)
        except open_vswitch.Missing as reason:
            missing = f"open_vswitch: not measured: {reason}"
    print_table(rates)
    if missing is not None:
        print(missing)
    return 1 if rates.problems or not rates.values else 0


if __name__ == "__main__":
    sys.exit(main())
