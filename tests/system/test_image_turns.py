"""Bulkhead and QEMU write to the same image in turn, through odd sizes up to 2 TiB, discards, snapshots and chains: after every turn both read what a raw file
says that was given the same writes, and both checkers find nothing. QEMU looks at each block of a hole: of what is larger than LARGE it reads the
surroundings of what was written and both ends, and every fourth time all, at the end; we read all each time."""

import os
import random
import shutil
import subprocess

import pytest

from test_image import MIB, ours, qemu
from test_nbd import serving

COUNT = 200 if os.environ.get("BULKHEAD_SLOW") == "1" else 3
GIB, TIB = 1 << 30, 1 << 40
LARGE, AROUND = 16 * GIB, 4 * MIB

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

# Name, format here, there, whether qemu-img can check it, whether images stand on others, largest disk. Of a VHDX, qemu-img reads every byte, holes too:
# larger ones are in test_image_formats.
SHAPES = {
    "raw": ("raw", "raw", False, False, 2 * TIB),
    "qcow2": ("qcow2", "qcow2", True, True, 2 * TIB),
    "vhd-dynamic": ("vhd", "vpc", False, False, 2040 * GIB),
    "vhd-fixed": ("vhd", "vpc", False, False, 2040 * GIB),
    "vhdx-dynamic": ("vhdx", "vhdx", True, False, 8 * GIB),
    "vhdx-fixed": ("vhdx", "vhdx", True, False, 8 * GIB),
    "vmdk-sparse": ("vmdk", "vmdk", True, True, 2 * TIB - 64 * MIB),
    "vmdk-flat": ("vmdk", "vmdk", False, False, 2 * TIB - 64 * MIB),
    "vmdk-split": ("vmdk", "vmdk", True, False, 64 * GIB),
    "vmdk-split-flat": ("vmdk", "vmdk", False, False, 64 * GIB),
}


def size_of(rng, largest):
    limit = min(largest, rng.choice((8 * MIB, 8 * MIB, 64 * MIB, 8 * GIB, 2 * TIB)))
    return rng.randint(1, limit // 512) * 512


def options(rng, name, size):
    """Ours, and QEMU's."""
    if name == "qcow2":
        version = rng.choice((2, 3, 3))
        # A table of the first level has at most 32 MiB: what each size of cluster can be.
        least = next(bits for bits in range(9, 22) if (1 << 2 * bits) * (1 << 19) >= size)
        cluster, bits = 1 << rng.randint(least, 21), 1 << rng.randint(0, 6) if version == 3 else 16
        theirs = f"compat={'0.10' if version == 2 else '1.1'},cluster_size={cluster}" + (f",refcount_bits={bits}" if version == 3 else "")
        return {"version": version, "cluster_size": cluster, "refcount_bits": bits}, theirs
    subformats = {"vhd-dynamic": "dynamic", "vhd-fixed": "fixed", "vhdx-dynamic": "dynamic", "vhdx-fixed": "fixed", "vmdk-sparse": "monolithicSparse",
                  "vmdk-flat": "monolithicFlat", "vmdk-split": "twoGbMaxExtentSparse", "vmdk-split-flat": "twoGbMaxExtentFlat"}
    if name == "raw":
        return {}, ""
    return {"subformat": subformats[name]}, f"subformat={subformats[name]}" + (",force_size=on" if name.startswith("vhd-") else "")


class Turns:
    """An image, and the raw file with what it should hold."""

    def __init__(self, folder, name, rng):
        self.folder, self.name, self.rng = folder, name, rng
        self.format, self.theirs, self.can_check, self.has_chains, largest = SHAPES[name]
        self.size = size_of(rng, largest)
        self.model, self.image, self.links, self.snapshots = folder / "model.raw", folder / "0.image", 1, []
        self.touched = [(0, 512), (self.size - 512, 512)]
        with self.model.open("wb") as file:
            file.truncate(self.size)
        settings, theirs = options(rng, name, self.size)
        # One bit counts no second user of a cluster.
        self.has_snapshots = settings.get("refcount_bits", 1) > 1
        if rng.random() < 0.5:
            ours("create", "-f", self.format, self.image, self.size, *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))
        else:
            qemu("qemu-img", "create", "-q", "-f", self.theirs, *(("-o", theirs) if theirs else ()), self.image, self.size)

    def write(self):
        """A few requests from one of the two programs."""
        rng, commands, same = self.rng, [], []
        near = rng.randrange(self.size)
        for _ in range(rng.randint(1, 10)):
            # Some close to each other, so that clusters are shared and blocks fill up.
            at = (rng.randrange(self.size) if rng.random() < 0.4 else min(near + rng.randrange(2 * MIB), self.size - 1)) // 512 * 512
            run = min(rng.randint(1, rng.choice((8, 300, 3000))) * 512, self.size - at)
            self.touched.append((at, run))
            kind = rng.choice(("data", "data", "data", "zeroes", "unmapped", "discard"))
            command = {"data": f"write -P {rng.randint(1, 255)}", "zeroes": "write -z", "unmapped": "write -z -u", "discard": "discard"}[kind]
            commands += ["-c", f"{command} {at} {run}"]
            # What a discard leaves is open: the place is written afterwards.
            if kind == "discard":
                commands += ["-c", f"write -z {at} {run}"]
            same += ["-c", f"{'write -z' if kind == 'discard' else command} {at} {run}"]
        qemu("qemu-io", "-f", "raw", "-d", "unmap", *same, self.model)
        if rng.random() < 0.5:
            with serving("-f", self.format, "--socket", self.folder / "s", self.image) as uri:
                qemu("qemu-io", "-f", "raw", "-d", "unmap", *commands, uri)
        else:
            qemu("qemu-io", "-f", self.theirs, "-d", "unmap", *commands, self.image)

    def windows(self):
        """Where a disk was written, and around it, in steps of AROUND: first and count, ascending, apart."""
        steps = sorted({step for at, run in self.touched for step in range(at // AROUND - 1, (at + run - 1) // AROUND + 2)})
        joined = []
        for step in steps:
            if not 0 <= step * AROUND < self.size:
                continue
            if joined and step == sum(joined[-1]):
                joined[-1][1] += 1
            else:
                joined.append([step, 1])
        return joined

    def compare_with_qemu(self, model, whole):
        if whole:
            qemu("qemu-img", "compare", "-q", "-f", "raw", "-F", self.theirs, model, self.image)
            return
        part = self.folder / "part.raw"
        # Its count begins where the disk does, not where it skips to.
        for first, count in self.windows():
            qemu("qemu-img", "dd", "-f", self.theirs, "-O", "raw", f"bs={AROUND}", f"skip={first}", f"count={first + count}", f"if={self.image}", f"of={part}")
            with model.open("rb") as file:
                file.seek(first * AROUND)
                assert part.read_bytes() == file.read(count * AROUND), f"{self.image} differs in {count * AROUND} bytes from {first * AROUND} on"
            part.unlink()

    def compare(self, model=None, at_end=False):
        model = model or self.model
        if self.format != "raw":
            ours("check", "-f", self.format, self.image)
        if self.can_check:
            qemu("qemu-img", "check", "-q", "-f", self.theirs, self.image)
        self.compare_with_qemu(model, self.size <= LARGE or (at_end and self.rng.random() < 0.25))
        copy = self.folder / "copy.raw"
        ours("convert", "--no-sync", "-f", self.format, "-O", "raw", self.image, copy)
        qemu("qemu-img", "compare", "-q", "-f", "raw", "-F", "raw", model, copy)
        copy.unlink()

    def grow_chain(self):
        top = self.folder / f"{self.links}.image"
        backing = ["-b", self.image.name, "-F", self.format]
        if self.rng.random() < 0.5:
            ours("create", "-f", self.format, top, *backing)
        else:
            qemu("qemu-img", "create", "-q", "-f", self.theirs, *backing, top)
        self.image, self.links, self.snapshots = top, self.links + 1, []

    def snapshot(self):
        name, kept = f"s{len(self.snapshots)}", self.folder / f"{self.links}-{len(self.snapshots)}.raw"
        subprocess.run(["cp", "--sparse=always", self.model, kept], check=True)
        if self.rng.random() < 0.5:
            ours("snapshot", "-f", "qcow2", self.image, "create", name)
        else:
            qemu("qemu-img", "snapshot", "-c", name, self.image)
        self.snapshots.append((name, kept))

    def go_back(self):
        name, kept = self.rng.choice(self.snapshots)
        if self.rng.random() < 0.5:
            ours("snapshot", "-f", "qcow2", self.image, "apply", name)
        else:
            qemu("qemu-img", "snapshot", "-a", name, self.image)
        self.compare(kept)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(COUNT))
def test_both_programs_write_to_one_image_in_turn(tmp_path, name, seed):
    rng = random.Random(f"turns {name} {seed}")
    turns = Turns(tmp_path, name, rng)
    count = rng.randint(2, 4)
    for turn in range(count):
        turns.write()
        turns.compare(at_end=turn == count - 1)
        if turns.has_chains and rng.random() < 0.25:
            turns.grow_chain()
        if name == "qcow2" and rng.random() < 0.4 and turns.has_snapshots:
            turns.snapshot()
    if turns.snapshots:
        turns.go_back()
