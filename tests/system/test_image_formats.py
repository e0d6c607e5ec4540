"""VHD, VHDX and VMDK against qemu-img, in both directions: random disks must be equal byte by byte, and clean for the checkers there are."""

import json
import os
import random
import shutil
import struct

import pytest

from bulkhead import run
from test_image import COUNT, MIB, ours, qemu, random_raw, random_size

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

# Name, format here, settings here, format there, options there, whether qemu-img can check it.
SHAPES = [
    ("vhd-dynamic", "vhd", [], "vpc", "subformat=dynamic,force_size=on", False),
    ("vhd-fixed", "vhd", ["--set", "subformat=fixed"], "vpc", "subformat=fixed,force_size=on", False),
    ("vhdx-dynamic", "vhdx", ["--set", "block_size=1048576"], "vhdx", "subformat=dynamic,block_size=1M", True),
    ("vhdx-default", "vhdx", [], "vhdx", "subformat=dynamic", True),
    ("vhdx-fixed", "vhdx", ["--set", "subformat=fixed", "--set", "block_size=2097152"], "vhdx", "subformat=fixed", True),
    ("vmdk-sparse", "vmdk", [], "vmdk", "subformat=monolithicSparse", True),
    ("vmdk-flat", "vmdk", ["--set", "subformat=monolithicFlat"], "vmdk", "subformat=monolithicFlat", False),
    ("vmdk-split", "vmdk", ["--set", "subformat=twoGbMaxExtentSparse", "--set", "extent_size=1048576"], "vmdk", "subformat=twoGbMaxExtentSparse", True),
    ("vmdk-split-flat", "vmdk", ["--set", "subformat=twoGbMaxExtentFlat", "--set", "extent_size=2097152"], "vmdk", "subformat=twoGbMaxExtentFlat", False),
]
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=[shape[0] for shape in SHAPES])


def change_at_random(rng, path, format_, size):
    commands = []
    for _ in range(rng.randint(1, 12)):
        at, run = rng.randrange(size // 512) * 512, rng.randint(1, 300) * 512
        run = min(run, size - at)
        commands += ["-c", f"{rng.choice((f'write -P {rng.randint(1, 255)}', 'write -z'))} {at} {run}"]
    qemu("qemu-io", "-f", format_, *commands, path)


@EACH_SHAPE
@pytest.mark.parametrize("seed", range(COUNT))
def test_qemu_reads_and_changes_what_we_write(tmp_path, shape, seed):
    name, format_, settings, theirs, _, can_check = shape
    rng = random.Random(f"{name} {seed}")
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    ours("convert", tmp_path / "a.raw", tmp_path / "a.image", "-O", format_, *settings)
    if can_check:
        qemu("qemu-img", "check", "-f", theirs, tmp_path / "a.image")
    qemu("qemu-img", "compare", "-f", "raw", "-F", theirs, tmp_path / "a.raw", tmp_path / "a.image")
    ours("check", "-f", format_, tmp_path / "a.image")
    change_at_random(rng, tmp_path / "a.image", theirs, size)
    qemu("qemu-img", "convert", "-f", theirs, "-O", "raw", tmp_path / "a.image", tmp_path / "b.raw")
    ours("check", "-f", format_, tmp_path / "a.image")
    ours("convert", "-f", format_, tmp_path / "a.image", tmp_path / "c.raw")
    assert (tmp_path / "b.raw").read_bytes() == (tmp_path / "c.raw").read_bytes()


@EACH_SHAPE
@pytest.mark.parametrize("seed", range(COUNT))
def test_we_read_what_qemu_writes(tmp_path, shape, seed):
    name, format_, _, theirs, options, _ = shape
    rng = random.Random(f"theirs {name} {seed}")
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    qemu("qemu-img", "convert", "-f", "raw", "-O", theirs, "-o", options, tmp_path / "a.raw", tmp_path / "a.image")
    change_at_random(rng, tmp_path / "a.image", theirs, size)
    qemu("qemu-img", "convert", "-f", theirs, "-O", "raw", tmp_path / "a.image", tmp_path / "b.raw")
    ours("check", "-f", format_, tmp_path / "a.image")
    ours("compare", "-f", format_, "-F", "raw", tmp_path / "a.image", tmp_path / "b.raw")


@EACH_SHAPE
@pytest.mark.parametrize("size", ["64M", "5000M", "127G", "2040G"])
def test_large_disks_are_as_large_in_both_programs(tmp_path, shape, size):
    name, format_, settings, theirs, _, _ = shape
    if "split" in name:
        if size == "2040G":
            pytest.skip("more files than a process may open")
        settings = settings[:2]
    if name == "vhdx-dynamic" and size == "2040G":
        settings = []
    ours("create", "-f", format_, tmp_path / "a.image", size, *settings)
    end = int(size[:-1]) * {"M": MIB, "G": MIB << 10}[size[-1]]
    qemu("qemu-io", "-f", theirs, "-c", f"write -P 7 {end - 65536} 64K", tmp_path / "a.image")
    ours("check", "-f", format_, tmp_path / "a.image")
    assert f"virtual_size: {end}\n" in ours("info", "-f", format_, tmp_path / "a.image")
    assert os.stat(tmp_path / "a.image").st_blocks * 512 < 256 * MIB


@EACH_SHAPE
def test_a_grown_disk_is_as_large_for_qemu(tmp_path, shape):
    name, format_, settings, theirs, _, _ = shape
    if "flat" in name or "split" in name:
        pytest.skip("does not grow")
    rng = random.Random(name)
    random_raw(tmp_path / "a.raw", rng, 3 * MIB)
    ours("convert", tmp_path / "a.raw", tmp_path / "a.image", "-O", format_, *settings)
    ours("resize", "-f", format_, tmp_path / "a.image", "3G")
    qemu("qemu-io", "-f", theirs, "-c", f"write -P 7 {3000 * MIB} 64K", tmp_path / "a.image")
    ours("check", "-f", format_, tmp_path / "a.image")
    with open(tmp_path / "a.raw", "r+b") as file:
        file.truncate(3 << 30)
        file.seek(3000 * MIB)
        file.write(b"\7" * 65536)
    ours("compare", "-f", format_, "-F", "raw", tmp_path / "a.image", tmp_path / "a.raw")


@pytest.mark.parametrize("seed", range(COUNT))
def test_qemu_reads_our_stream_optimized_vmdk_and_we_theirs(tmp_path, seed):
    rng = random.Random(f"stream {seed}")
    random_raw(tmp_path / "a.raw", rng, random_size(rng) + rng.choice((0, 40 * MIB)))
    ours("convert", tmp_path / "a.raw", tmp_path / "ours.vmdk", "--set", "subformat=streamOptimized")
    ours("check", tmp_path / "ours.vmdk")
    qemu("qemu-img", "check", "-f", "vmdk", tmp_path / "ours.vmdk")
    qemu("qemu-img", "compare", "-f", "raw", "-F", "vmdk", tmp_path / "a.raw", tmp_path / "ours.vmdk")
    qemu("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", tmp_path / "a.raw", tmp_path / "theirs.vmdk")
    ours("check", tmp_path / "theirs.vmdk")
    ours("compare", "-F", "raw", tmp_path / "theirs.vmdk", tmp_path / "a.raw")


@pytest.mark.parametrize("seed", range(COUNT))
def test_vmdk_delta_chains_are_the_same_for_both(tmp_path, seed):
    rng = random.Random(f"delta {seed}")
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    # One made by each program on top of the other's.
    ours("convert", tmp_path / "a.raw", tmp_path / "base.vmdk")
    qemu("qemu-img", "create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", tmp_path / "middle.vmdk")
    change_at_random(rng, tmp_path / "middle.vmdk", "vmdk", size)
    ours("create", "-f", "vmdk", "-b", "middle.vmdk", "-F", "vmdk", tmp_path / "top.vmdk")
    change_at_random(rng, tmp_path / "top.vmdk", "vmdk", size)
    ours("check", "-f", "vmdk", tmp_path / "top.vmdk")
    qemu("qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp_path / "top.vmdk", tmp_path / "b.raw")
    ours("compare", "-f", "vmdk", "-F", "raw", tmp_path / "top.vmdk", tmp_path / "b.raw")
    change_at_random(rng, tmp_path / "middle.vmdk", "vmdk", size)
    assert "was changed since" in ours("info", "-f", "vmdk", tmp_path / "top.vmdk", status=1)


def test_a_split_image_is_opened_by_any_of_its_files_and_only_when_its_format_is_stated(tmp_path):
    rng = random.Random(1)
    random_raw(tmp_path / "a.raw", rng, 5 * MIB)
    ours("convert", tmp_path / "a.raw", tmp_path / "a.vmdk", "--set", "subformat=twoGbMaxExtentSparse", "--set", "extent_size=2097152")
    for file in ("a.vmdk", "a-s001.vmdk", "a-s003.vmdk"):
        ours("compare", "-f", "vmdk", "-F", "raw", tmp_path / file, tmp_path / "a.raw")
    assert "state the image's format" in ours("info", tmp_path / "a-s001.vmdk", status=1)


def test_files_of_an_image_that_cannot_be_made_are_removed_again(tmp_path):
    (tmp_path / "a-f002.vmdk").write_bytes(b"mine")
    ours("create", tmp_path / "a.vmdk", "5M", "--set", "subformat=twoGbMaxExtentFlat", "--set", "extent_size=2097152", status=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a-f002.vmdk"]


def server_extent(sectors, grain, grains):
    """An ESXi snapshot's extent ("COWD", VMware's Virtual Disk Format 5.0): grains is {number: bytes}, grain the sectors of each."""
    count = -(-sectors // (4096 * grain))
    header = b"COWD" + struct.pack("<7I", 1, 3, sectors, grain, 4, count, 0)
    directory, tables, data = [0] * count, {}, []
    end = 4 + -(-count * 4 // 512)
    for number, content in grains.items():
        if not directory[number // 4096]:
            directory[number // 4096], end = end, end + 32
            tables[number // 4096] = [0] * 4096
        tables[number // 4096][number % 4096] = end
        data.append((end, content))
        end += grain
    extent = bytearray(end * 512)
    extent[:len(header)] = header
    struct.pack_into(f"<{count}I", extent, 4 * 512, *directory)
    for number, table in tables.items():
        struct.pack_into("<4096I", extent, directory[number] * 512, *table)
    for at, content in data:
        extent[at * 512:at * 512 + len(content)] = content
    return bytes(extent)


@pytest.mark.parametrize("grain", [1, 8, 128])
def test_snapshots_of_esxi_are_read_as_qemu_reads_them(tmp_path, grain):
    rng = random.Random(grain)
    sectors = 12345 * 8
    random_raw(tmp_path / "vm-flat.vmdk", rng, sectors * 512)

    def describe(name, id_, parent, kind, extent, hint=""):
        (tmp_path / name).write_text(f"# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={id_}\nparentCID={parent}\n"
                                     f"createType=\"{kind}\"\n{hint}\n# Extent description\nRW {sectors} {extent}\n\nddb.adapterType = \"lsilogic\"\n")

    describe("vm.vmdk", "0000aaaa", "ffffffff", "vmfs", 'VMFS "vm-flat.vmdk"')
    below = "0000aaaa"
    for number in (1, 2):
        name, id_ = f"vm-00000{number}", f"0000bbb{number}"
        units = -(-sectors // grain)
        grains = {unit: rng.randbytes(grain * 512) for unit in sorted(rng.sample(range(units), min(units, 200))) + [units - 1]}
        (tmp_path / f"{name}-delta.vmdk").write_bytes(server_extent(sectors, grain, grains))
        describe(f"{name}.vmdk", id_, below, "vmfsSparse", f'VMFSSPARSE "{name}-delta.vmdk"',
                 f'parentFileNameHint="{"vm" if number == 1 else "vm-000001"}.vmdk"\n')
        below = id_
    for name in ("vm", "vm-000001", "vm-000002"):
        qemu("qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp_path / f"{name}.vmdk", tmp_path / "theirs.raw")
        ours("compare", "-f", "vmdk", "-F", "raw", tmp_path / f"{name}.vmdk", tmp_path / "theirs.raw")
        ours("convert", "-f", "vmdk", tmp_path / f"{name}.vmdk", tmp_path / f"{name}.raw")
        assert (tmp_path / f"{name}.raw").read_bytes() == (tmp_path / "theirs.raw").read_bytes()
        told = json.loads(ours("info", "-f", "vmdk", "-o", "json", tmp_path / f"{name}.vmdk"))
        assert told["virtual_size"] == json.loads(qemu("qemu-img", "info", "--output=json", tmp_path / f"{name}.vmdk"))["virtual-size"]
        ours("check", "-f", "vmdk", tmp_path / f"{name}.vmdk")
        assert "looks like a vmdk image" in run(["run", "--kernel", "/dev/null", "--disk", tmp_path / f"{name}.vmdk"]).errors
    ours("compare", "-f", "vmdk", "-F", "vmdk", tmp_path / "vm-000002.vmdk", tmp_path / "vm-000002-delta.vmdk")
    assert "can only be read; convert it" in ours("resize", "-f", "vmdk", tmp_path / "vm-000002.vmdk", "1G", status=1)
