#!/usr/bin/env python3
"""Compares the requests a second that a guest's fio makes on a virtio disk under Bulkhead's soft engine and under QEMU's TCG: see bench/README.md.

All sides take turns in every round, on the same image. Exit status: 0 when everything was measured, 1 when not. Missing a gate is no failure of a run."""
import argparse
import collections
import datetime
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time

import guest

BULKHEAD = pathlib.Path(os.environ.get("BULKHEAD", guest.ROOT / "build/release/src/apps/bulkhead"))
QEMU = shutil.which("qemu-system-x86_64")
GATE = 2.0  # times the better of QEMU's figures
ROWS = [("randread", 1), ("randread", 32), ("randwrite", 1), ("randwrite", 32)]
SIDES = ["bulkhead", "tcg threads", "tcg io_uring"]
RAM_MIB = 512


def cpu_seconds(pid):
    """Of all threads of a process, by its CPU clock (clock_getcpuclockid)."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0  # ended already


def command(side, image, image_format, options, rows):
    kernel = guest.GUEST / "vmlinuz"
    line = (f"console=ttyS0 panic=-1 quiet rdinit=/fio-init bench.seconds={options.seconds} bench.rows=" +
            ",".join(f"{pattern}:{depth}" for pattern, depth in rows))
    if side == "bulkhead":
        return [BULKHEAD, "run", "--engine", "soft", "--cpus", options.cpus, "--memory", f"{RAM_MIB}M", "--kernel", kernel, "--initrd", guest.INITRD,
                "--cmdline", line, "--disk", f"file={image},format={image_format},serial=work,cache={options.cache}",
                "--disk", f"file={guest.PROGRAMS},readonly", *options.extra]
    aio = side.split()[1]
    return [QEMU, "-accel", "tcg", "-cpu", "max", "-smp", options.cpus, "-m", RAM_MIB, "-nodefaults", "-display", "none", "-serial", "stdio",
            "-no-reboot", "-kernel", kernel, "-initrd", guest.INITRD, "-append", line, "-object", "iothread,id=io",
            "-drive", f"file={image},format={image_format},if=none,id=work,cache={options.cache},aio={aio}",
            "-device", "virtio-blk-pci,drive=work,iothread=io,serial=work",
            "-drive", f"file={guest.PROGRAMS},format=raw,if=none,id=programs,readonly=on", "-device", "virtio-blk-pci,drive=programs"]


def run(arguments, rows, seconds):
    """Row -> requests a second by the guest's clock, and microseconds of the process's CPU time a request, without fio's start."""
    process = subprocess.Popen([str(word) for word in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace")
    timer = threading.Timer(120 + len(rows) * seconds * 10, process.kill)
    timer.start()
    found, last, cpu, start = {}, [], 0.0, 0.0
    try:
        for text in process.stdout:
            last = last[-20:] + [text.strip()]
            if re.search(r"begin: \w+ \d+\s*$", text):
                cpu = cpu_seconds(process.pid)
            elif match := re.search(r"fio: (\w+) (\d+) (\d+) (\d+) (\d+)\s*$", text):
                pattern, depth, requests, us, error = match.group(1), *map(int, match.groups()[1:])
                spent = cpu_seconds(process.pid) - cpu
                if pattern == "start":
                    start = spent
                elif error == 0 and requests != 0 and us != 0:
                    found[pattern, depth] = requests * 1e6 / us, max(spent - start, 0) * 1e6 / requests
        process.wait()
    finally:
        process.kill()
        process.wait()
        timer.cancel()
    if set(found) != set(rows):
        raise RuntimeError("no figures of " + ", ".join(f"{pattern} {depth}" for pattern, depth in rows if (pattern, depth) not in found) + ": " + " | ".join(last))
    return found


def summary(values, formats, rows):
    """One dictionary a row: medians, all figures, and the ratio to the better of QEMU's."""
    results = []
    for image_format in formats:
        for row in rows:
            figures = {side: values[image_format, side, row] for side in SIDES if values[image_format, side, row]}
            medians = {side: statistics.median(iops for iops, _ in found) for side, found in figures.items()}
            theirs = [median for side, median in medians.items() if side != "bulkhead"]
            ratio = medians["bulkhead"] / max(theirs) if theirs and "bulkhead" in medians else None
            results.append({"name": f"{image_format} {row[0]} depth {row[1]}", "medians": medians, "ratio": ratio, "gate": GATE,
                            "cpu us": {side: statistics.median(us for _, us in found) for side, found in figures.items()},
                            "figures": {side: [iops for iops, _ in found] for side, found in figures.items()}})
    return results


def table(results):
    lines = ["| what | " + " | ".join(SIDES) + " | ratio | demanded | | CPU us a request |", "|---" * (len(SIDES) + 5) + "|"]
    for result in results:
        def shown(side, result=result):
            found = result["figures"].get(side)
            return f"{result['medians'][side]:.0f} ({min(found):.0f}..{max(found):.0f})" if found else "-"
        ratio = result["ratio"]
        verdict = "- | 2 | -" if ratio is None else f"{ratio:.2f} | {GATE:g} | {'holds' if ratio >= GATE else 'missed'}"
        cpu = ", ".join(f"{us:.1f}" for us in result["cpu us"].values())
        lines.append(f"| {result['name']} | {' | '.join(map(shown, SIDES))} | {verdict} | {cpu} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each row")
    parser.add_argument("--cpus", type=int, default=1, help="of the guest")
    parser.add_argument("--cache", choices=("writeback", "none"), default="writeback", help="of both sides")
    parser.add_argument("--mib", type=int, default=256, help="of the image")
    parser.add_argument("--format", action="append", choices=("raw", "qcow2"), help="may stand twice; both by default")
    parser.add_argument("--only", action="append", help="rows that contain this, such as randread or ' 32'; may stand several times")
    parser.add_argument("--sides", default=",".join(SIDES), help="of " + ", ".join(SIDES))
    parser.add_argument("--extra", action="append", default=[], help="an option of Bulkhead's runs, such as --extra=--perf-map")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path)
    options = parser.parse_args()
    sides, formats = options.sides.split(","), options.format or ["raw", "qcow2"]
    rows = [row for row in ROWS if not options.only or any(word in f"{row[0]} {row[1]}" for word in options.only)]
    if not rows or not set(sides) <= set(SIDES):
        parser.error("no such row or side")
    guest.build()
    values, problems, load = collections.defaultdict(list), [], os.getloadavg()
    for image_format in formats:
        image = guest.build_image(image_format, options.mib)
        for number in range(options.rounds):
            for side in (sides if number % 2 == 0 else reversed(sides)):
                guest.warm(image)
                try:
                    found = run(command(side, image, image_format, options, rows), rows, options.seconds)
                except RuntimeError as problem:
                    problems.append(f"{image_format}, {side}: {problem}")
                    continue
                for row, figures in found.items():
                    values[image_format, side, row].append(figures)
                print(f"{image_format} {side}: " + ", ".join(f"{iops:.0f}" for iops, _ in found.values()), file=sys.stderr, flush=True)
    results = summary(values, formats, rows)
    facts = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "kernel": platform.release(), "cpus": os.cpu_count(),
             "load before and after": [round(found[0], 1) for found in (load, os.getloadavg())],
             "qemu": subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0],
             "rounds": options.rounds, "seconds": options.seconds, "guest's cpus": options.cpus, "cache": options.cache}
    text = ", ".join(f"{key}: {value}" for key, value in facts.items()) + "\n\n" + table(results)
    print(text)
    if options.text:
        options.text.write_text(text)
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "results": results, "problems": problems}, indent=1))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
