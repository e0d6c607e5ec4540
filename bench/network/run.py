#!/usr/bin/env python3
"""Compares throughput between guests, to the host through user-mode NAT, and the round trip of a ping with QEMU's TCG: see bench/README.md.

All sides take turns in every round, and every byte is compared. Exit status: 0 when everything was measured, 1 when not. Missing a gate is
no failure of a run."""
import argparse
import collections
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile

import guests

GATES = {"iperf3": 3.0, "guest to guest": 3.0, "guest to host": 2.0, "host to guest": 2.0, "ping": 2.0}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def between_guests(start_one, start_two, options):
    one = start_one(address="10.9.0.1/24", serve=5000)
    try:
        one.wait_for("serving: 5000")
        two = start_two(address="10.9.0.2/24", peer="10.9.0.1", port=5000, bytes=options.mib << 20, rounds=1,
                        iperf=options.seconds, pings=options.pings)
        try:
            two.wait_for("TRAFFIC DONE")
        finally:
            two.kill()
        return two.output
    finally:
        one.kill()


def bulkhead_guests(options, initrd, folder):
    switch = guests.Switch(folder)
    try:
        return between_guests(lambda **words: guests.bulkhead(initrd, switch.nic("one"), **words),
                              lambda **words: guests.bulkhead(initrd, switch.nic("two"), **words), options)
    finally:
        switch.stop()


def tcg_guests(hub):
    def run(options, initrd, _):
        port = free_port()

        def nets(role):
            if not hub:
                return [f"socket,id=card,{role}=127.0.0.1:{port}"]
            return [f"socket,id=wire,{role}=127.0.0.1:{port}", "hubport,id=port,hubid=0,netdev=wire", "hubport,id=card,hubid=0"]

        return between_guests(lambda **words: guests.qemu(initrd, nets("listen"), "02:00:00:00:00:01", **words),
                              lambda **words: guests.qemu(initrd, nets("connect"), "02:00:00:00:00:02", **words), options)
    return run


def through_nat(start):
    def run(options, initrd, _):
        served = subprocess.Popen([initrd.parent / "traffic", "serve", "0"], stdout=subprocess.PIPE, text=True)
        try:
            port = int(served.stdout.readline().split()[1])
            guest = start(initrd, address="10.0.2.15/24", gateway="10.0.2.2", peer="10.0.2.2", port=port, bytes=options.mib << 20, rounds=1)
            try:
                guest.wait_for("TRAFFIC DONE")
            finally:
                guest.kill()
            return guest.output
        finally:
            served.kill()
            served.wait()
    return run


SIDES = {
    ("guests", "bulkhead"): bulkhead_guests,
    ("guests", "tcg socket"): tcg_guests(hub=False),
    ("guests", "tcg hub"): tcg_guests(hub=True),
    ("nat", "bulkhead"): through_nat(lambda initrd, **words: guests.bulkhead(initrd, "nat,host=on", **words)),
    ("nat", "tcg user"): through_nat(lambda initrd, **words: guests.qemu(initrd, ["user,id=card"], "02:00:00:00:00:03", **words)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=64, help="of each transfer")
    parser.add_argument("--seconds", type=int, default=10, help="that iperf3 sends, and receives")
    parser.add_argument("--pings", type=int, default=200)
    parser.add_argument("--only", choices=("guests", "nat"))
    options = parser.parse_args()
    values, problems = collections.defaultdict(list), []
    sides = [key for key in SIDES if options.only in (None, key[0])]
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        _, initrd = guests.build(pathlib.Path(made), programs=["iperf3"])
        for _ in range(options.rounds):
            random.shuffle(sides)
            for kind, side in sides:
                with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                    try:
                        said = SIDES[kind, side](options, initrd, pathlib.Path(folder))
                        found = guests.figures(said)
                        if not found["sent"] or not found["received"]:
                            raise RuntimeError("no figures")
                    except RuntimeError as problem:
                        problems.append(f"{kind}, {side}: {problem}")
                        continue
                if kind == "guests":
                    values["iperf3", side] += [float(rate) * 1e6 / 8 for rate in guests.IPERF.findall(said)]
                    values["guest to guest", side] += found["sent"] + found["received"]
                    values["ping", side] += [float(time) for time in guests.PING.findall(said)]
                else:
                    values["guest to host", side] += found["sent"]
                    values["host to guest", side] += found["received"]
    show(values)
    for problem in problems:
        print(problem)
    return 1 if problems or not values else 0


def show(values):
    print(f"{'':<16} {'':<12} {'median (min..max)':>34} {'Bulkhead against it':>34}")
    for name, gate in GATES.items():
        unit, scale = ("ms", 1.0) if name == "ping" else ("MB/s", 1e-6)
        own = values.get((name, "bulkhead"))
        for side in [side for what, side in values if what == name]:
            figures = [value * scale for value in values[name, side]]
            median = statistics.median(figures)
            against = ""
            if own and side != "bulkhead":
                ratio = median / (statistics.median(own) * scale)
                ratio = ratio if name == "ping" else 1 / ratio
                against = f"{ratio:.2f} times as {'fast' if name != 'ping' else 'quick'} (gate {gate:g}: {'met' if ratio >= gate else 'missed'})"
            print(f"{name:<16} {side:<12} {f'{median:.3f} ({min(figures):.3f}..{max(figures):.3f}) {unit}':>34} {against:>38}")


if __name__ == "__main__":
    sys.exit(main())
