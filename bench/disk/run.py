#!/usr/bin/env python3
"""Compares `bulkhead image convert` and `bulkhead image bench` with qemu-img, in turn, on the same files: see bench/README.md.

Exit status: 0 when everything ran and both sides' images had equal contents, 1 when not. Missing a gate is no failure of a run.
"""
import argparse
import datetime
import json
import mmap
import os
import pathlib
import platform
import random
import re
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BULKHEAD = pathlib.Path(os.environ.get("BULKHEAD", ROOT / "build/release/src/apps/bulkhead"))
MIB = 1 << 20
CONVERT_GATE, BENCH_GATE, MEMORY_GATE = 1.5, 1.2, 32  # times the better of qemu-img's figures; MiB at most
# name, format and name of the source, format of the target, compressed
CONVERSIONS = [("raw to qcow2", "raw", "qcow2", False), ("qcow2 to raw", "qcow2", "raw", False),
               ("qcow2 to compressed qcow2", "qcow2", "qcow2", True), ("vmdk to qcow2", "vmdk", "qcow2", False)]
DEPTHS = [1, 32, 128]


def contents():
    """The bytes of this host's programs and libraries, one file after another, for ever: data as disks hold it."""
    while True:
        for folder in ["/usr/lib", "/usr/bin", "/usr/share"]:
            for path in sorted(pathlib.Path(folder).rglob("*")):
                try:
                    if path.is_symlink() or not path.is_file():
                        continue
                    yield path.read_bytes()
                except OSError:
                    continue


def make_raw(path, size, seed):
    """A sparse file, half of whose MiB hold data."""
    units = list(range(size // MIB))
    random.Random(seed).shuffle(units)
    source, pending = contents(), b""
    with path.open("wb") as file:
        file.truncate(size)
        for unit in sorted(units[:len(units) // 2]):
            while len(pending) < MIB:
                pending += next(source)
            file.seek(unit * MIB)
            file.write(pending[:MIB])
            pending = pending[MIB:]


def warm(path):
    """Brings what a file holds into the page cache, but not its holes."""
    with path.open("rb", buffering=0) as file:
        at, end = 0, path.stat().st_size
        while at < end:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            for offset in range(start, at, MIB):
                os.pread(file.fileno(), min(MIB, at - offset), offset)


def touch_memory(mib):
    """Has this host find the memory that the next run will fill, where it is a guest itself and gives free memory back: a page that the outer
    host must find first costs more than what is measured, and which side meets more of them is luck."""
    part = bytes(64 * MIB)
    with mmap.mmap(-1, mib * MIB) as memory:
        for offset in range(0, len(memory) - len(part) + 1, len(part)):
            memory[offset:offset + len(part)] = part


def cache_in_small_pages(path):
    """Fills the page cache again as a guest's small requests fill it. Behind a conversion it holds pieces of up to 2 MiB, and ext4 looks at
    each of their blocks at every write, under the file's lock: 60 us a write of 4 KiB, whoever writes."""
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for offset in range(0, path.stat().st_size, 4096):
            os.pread(file.fileno(), 4096, offset)


def peak_memory(command):
    """MiB that a process had resident at most."""
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: status {process.returncode}")
    return usage.ru_maxrss / 1024


def timed(command):
    """Wall and CPU seconds of a command."""
    before, start = os.times(), time.monotonic()
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    wall, after = time.monotonic() - start, os.times()
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip()[-500:]}")
    return wall, after.children_user + after.children_system - before.children_user - before.children_system, done.stdout


class Run:
    def __init__(self, options):
        self.options, self.folder = options, options.directory
        self.results, self.problems = [], []

    def say(self, text):
        print(text, file=sys.stderr, flush=True)

    def prepare(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        raw = self.folder / "source.raw"
        size = self.options.size * MIB
        if not raw.exists() or raw.stat().st_size != size:
            for old in self.folder.glob("source.*"):
                old.unlink()
            self.say(f"making {raw}: {self.options.size} MiB, half of it data")
            make_raw(raw, size, self.options.seed)
        for format in ["qcow2", "vmdk"]:
            path = self.folder / f"source.{format}"
            if not path.exists():
                subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", format, raw, path], check=True)

    def chosen(self, name):
        return not self.options.only or any(word in name for word in self.options.only)

    def record(self, name, unit, gate, figures, more_is_better, **extra):
        medians = {side: statistics.median(values) for side, values in figures.items()}
        theirs = [value for side, value in medians.items() if side != "bulkhead"]
        ratio = medians["bulkhead"] / max(theirs) if more_is_better else min(theirs) / medians["bulkhead"]
        self.results.append({"name": name, "unit": unit, "gate": gate, "ratio": ratio, "medians": medians, "figures": figures, **extra})
        self.say(f"{name}: {medians['bulkhead']:.2f} to {', '.join(f'{value:.2f}' for value in theirs)} {unit}, ratio {ratio:.2f}")

    # The source is in the page cache for all sides; what is written is synced before the next run begins, outside the time that is taken.
    def convert(self, name, source, target, compressed, synced=False):
        source_path = self.folder / f"source.{source}"
        outs = {side: self.folder / f"out-{side}.{target}" for side in ["bulkhead", "qemu-img", "qemu-img -m 16 -W"]}
        packed = ["-c"] if compressed else []
        # qemu-img leaves the new file to the page cache unless it is told otherwise; both do the same.
        ours, theirs = (["--no-sync"], []) if not synced else ([], ["-t", "none"])
        commands = {"bulkhead": [BULKHEAD, "image", "convert", "-q", "-f", source, "-O", target, *packed, *ours, source_path],
                    **{side: [*side.replace("qemu-img", "qemu-img convert").split(), "-f", source, "-O", target, *packed, *theirs, source_path]
                       for side in list(outs)[1:]}}
        figures, cpu = {side: [] for side in outs}, {side: [] for side in outs}
        for number in range(self.options.rounds):
            for side in (outs if number % 2 == 0 else reversed(outs)):
                outs[side].unlink(missing_ok=True)
                warm(source_path)
                os.sync()
                touch_memory(self.options.size // 2 + 1024)
                wall, seconds, _ = timed([*commands[side], outs[side]])
                figures[side].append(wall)
                cpu[side].append(seconds)
        sizes = {side: path.stat().st_blocks * 512 // MIB for side, path in outs.items()}
        same = subprocess.run(["qemu-img", "compare", "-q", "-f", target, "-F", target, outs["bulkhead"], outs["qemu-img"]], check=False)
        if same.returncode != 0:
            self.problems.append(f"{name}: the two sides' images differ")
        if target == "qcow2" and subprocess.run(["qemu-img", "check", "-q", "-f", target, outs["bulkhead"]], check=False).returncode != 0:
            self.problems.append(f"{name}: qemu-img check finds errors")
        for path in outs.values():
            path.unlink()
        self.record(name, "s", CONVERT_GATE, figures, False, cpu={side: statistics.median(values) for side, values in cpu.items()}, mib=sizes)

    def bench(self, image_format, operation, depth):
        path = self.folder / f"bench.{image_format}"
        name = f"bench {image_format} {operation} depth {depth}"
        count = self.options.count if depth > 1 else self.options.count // 2
        # qemu-img steps through the disk; a step that shares no factor with the disk's size comes to every place once, in an order that no
        # read-ahead knows. Both get the same.
        step = 4096 * 104729
        shared = ["-c", str(count), "-d", str(depth), "-s", "4096", "-S", str(step), "-f", image_format]
        write = ["-w"] if operation == "write" else []
        commands = {"bulkhead": [BULKHEAD, "image", "bench", *shared, *write, path], "qemu-img": ["qemu-img", "bench", *shared, *write, path]}
        figures = {side: [] for side in commands}
        for number in range(self.options.rounds):
            for side in (commands if number % 2 == 0 else reversed(commands)):
                os.sync()
                wall, _, said = timed(commands[side])
                found = re.search(r"completed in ([0-9.]+) seconds", said)
                figures[side].append(count / (float(found.group(1)) if found else wall) / 1000)
        self.record(name, "1000 IOPS", BENCH_GATE, figures, True)

    # A disk of 1 TiB, of which little is written: each request meets another table. Writing begins with an empty disk, so that it makes them.
    def memory(self, operation, count):
        path = self.folder / "large.qcow2"
        figures = {"bulkhead": [], "qemu-img": []}
        shared = ["-c", str(count), "-d", "32", "-s", "4096", "-S", str(4096 * 104729 * 5), "-f", "qcow2"]
        for number in range(self.options.rounds):
            for side, program in [("bulkhead", [BULKHEAD, "image"]), ("qemu-img", ["qemu-img"])]:
                if operation == "write" or (number == 0 and side == "bulkhead"):
                    path.unlink(missing_ok=True)
                    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1T"], check=True)
                if operation == "read" and number == 0 and side == "bulkhead":
                    subprocess.run(["qemu-img", "bench", *shared, "-w", path], stdout=subprocess.DEVNULL, check=True)
                figures[side].append(peak_memory([*program, "bench", *shared, *(["-w"] if operation == "write" else []), path]))
        path.unlink()
        self.record(f"memory, 1 TiB qcow2, random {operation}", "MiB", MEMORY_GATE, figures, False)

    def run(self):
        self.prepare()
        for name, *rest in CONVERSIONS:
            if self.chosen(name):
                self.convert(name, *rest)
            if self.chosen(name + ", synced") and self.options.synced:
                self.convert(name + ", synced", *rest, synced=True)
        for image_format in ["raw", "qcow2"]:
            wanted = [(operation, depth) for operation in ["read", "write"] for depth in DEPTHS
                      if self.chosen(f"bench {image_format} {operation} depth {depth}")]
            if not wanted:
                continue
            # A fully written image of a GiB: the tables and the data are in the page cache, so what is compared is the programs.
            path = self.folder / f"bench.{image_format}"
            filled = self.folder / "filled.raw"
            with filled.open("wb") as file:
                block = os.urandom(MIB)
                for _ in range(1024):
                    file.write(block)
            subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, filled, path], check=True)
            filled.unlink()
            cache_in_small_pages(path)
            for operation, depth in wanted:
                self.bench(image_format, operation, depth)
            path.unlink()
        for operation in ["read", "write"]:
            if self.chosen(f"memory, 1 TiB qcow2, random {operation}"):
                self.memory(operation, 8000)

    def table(self):
        lines = ["| what | bulkhead | qemu-img | qemu-img -m 16 -W | unit | ratio | demanded | |", "|---|---|---|---|---|---|---|---|"]
        for result in self.results:
            def shown(side, result=result):
                values = result["figures"].get(side)
                if values is None:
                    return "-"
                return f"{result['medians'][side]:.2f} ({min(values):.2f}..{max(values):.2f})"
            most = result["unit"] == "MiB"
            verdict = "holds" if (result["medians"]["bulkhead"] <= result["gate"] if most else result["ratio"] >= result["gate"]) else "missed"
            extra = ""
            if "mib" in result:
                extra = f"; {result['mib']['bulkhead']} and {result['mib']['qemu-img']} MiB; CPU " + ", ".join(f"{v:.2f}" for v in result["cpu"].values())
            lines.append(f"| {result['name']} | {shown('bulkhead')} | {shown('qemu-img')} | {shown('qemu-img -m 16 -W')} | {result['unit']}{extra} | "
                         f"{result['ratio']:.2f} | {'at most ' if most else ''}{result['gate']} | {verdict} |")
        return "\n".join(lines) + "\n"


def processor():
    names = re.findall(r"^(?:model name|cpu family|model)\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return " / ".join(names[:3])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=pathlib.Path, default=ROOT / ".cache/bench-disk", help="where the images are made and kept")
    parser.add_argument("--size", type=int, default=8192, help="MiB of the disk that is converted")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=200000, help="requests of a bench; half as many at depth 1")
    parser.add_argument("--synced", action="store_true", help="conversions that end on the disk, too (qemu-img -t none)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", help="what contains this word; may stand several times")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--text", type=pathlib.Path)
    options = parser.parse_args()
    run = Run(options)
    load = os.getloadavg()
    run.run()
    facts = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "kernel": platform.release(), "processor": processor(),
             "load before and after": [round(values[0], 1) for values in (load, os.getloadavg())],
             "cpus": os.cpu_count(), "qemu-img": subprocess.run(["qemu-img", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0],
             "rounds": options.rounds, "mib": options.size}
    print(", ".join(f"{key}: {value}" for key, value in facts.items()) + "\n\n" + run.table())
    if options.text:
        options.text.write_text(run.table())
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "results": run.results, "problems": run.problems}, indent=1))
    for problem in run.problems:
        print(problem, file=sys.stderr)
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
