"""bulkhead image against qemu-img, in both directions: random images must be equal byte by byte, and clean for both checkers."""

import json
import os
import random
import shutil
import subprocess

import pytest

from bulkhead import BULKHEAD

COUNT = 200 if os.environ.get("BULKHEAD_SLOW") == "1" else 12
MIB = 1 << 20

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


def ours(*words, status=0):
    done = subprocess.run([str(BULKHEAD), "image", *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def qemu(tool, *words):
    done = subprocess.run([tool, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{tool} {words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def options_of(rng):
    version = rng.choice((2, 3, 3))
    cluster = 1 << rng.randint(9, 21)
    bits = 1 << rng.randint(0, 6) if version == 3 else 16
    return version, cluster, bits


def random_raw(path, rng, size):
    """A sparse file with random runs of data, some of them zeroes."""
    with open(path, "wb") as file:
        file.truncate(size)
        for _ in range(rng.randint(1, 40)):
            file.seek(rng.randrange(size))
            run = min(rng.randint(1, 200_000), size - file.tell())
            file.write(bytes(run) if rng.random() < 0.2 else rng.randbytes(run))


def random_size(rng):
    return rng.randint(1, 8 * MIB // 512) * 512


@pytest.mark.parametrize("seed", range(COUNT))
def test_qemu_reads_what_we_convert(tmp_path, seed):
    rng = random.Random(seed)
    random_raw(tmp_path / "a.raw", rng, random_size(rng))
    version, cluster, bits = options_of(rng)
    ours("convert", tmp_path / "a.raw", tmp_path / "a.qcow2", "--set", f"version={version}", "--set", f"cluster_size={cluster}",
         "--set", f"refcount_bits={bits}")
    qemu("qemu-img", "check", "-f", "qcow2", tmp_path / "a.qcow2")
    qemu("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "a.raw", tmp_path / "a.qcow2")
    ours("check", tmp_path / "a.qcow2")
    ours("convert", tmp_path / "a.qcow2", tmp_path / "b.raw")
    assert (tmp_path / "a.raw").read_bytes() == (tmp_path / "b.raw").read_bytes()


@pytest.mark.parametrize("seed", range(COUNT))
def test_we_read_what_qemu_writes(tmp_path, seed):
    rng = random.Random(1000 + seed)
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    version, cluster, bits = options_of(rng)
    compat = f"compat={'0.10' if version == 2 else '1.1'},cluster_size={cluster}"
    compression = []
    if rng.random() < 0.4:
        compression = ["-c"]
        if version == 3 and rng.random() < 0.5:
            compat += ",compression_type=zstd"
    if version == 3:
        compat += f",refcount_bits={bits}"
    qemu("qemu-img", "convert", *compression, "-f", "raw", "-O", "qcow2", "-o", compat, tmp_path / "a.raw", tmp_path / "a.qcow2")
    # Compressed clusters share a cluster of the file, whose count of references must have room for each of them once more.
    if rng.random() < 0.4 and bits > (4 if compression else 1):
        qemu("qemu-img", "snapshot", "-c", "before", tmp_path / "a.qcow2")
    commands = []
    for _ in range(rng.randint(0, 12)):
        at, run = rng.randrange(size // 512) * 512, rng.randint(1, 300) * 512
        run = min(run, size - at)
        commands += ["-c", f"{rng.choice(('write -P 7', 'write -z', 'discard'))} {at} {run}"]
    if commands:
        qemu("qemu-io", "-f", "qcow2", *commands, tmp_path / "a.qcow2")
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "a.qcow2", tmp_path / "b.raw")
    ours("check", tmp_path / "a.qcow2")
    ours("convert", tmp_path / "a.qcow2", tmp_path / "c.raw")
    assert (tmp_path / "b.raw").read_bytes() == (tmp_path / "c.raw").read_bytes()


@pytest.mark.parametrize("seed", range(COUNT))
def test_qemu_reads_what_we_compress(tmp_path, seed):
    rng = random.Random(2000 + seed)
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    with open(tmp_path / "a.raw", "r+b") as file:  # something that shrinks
        for _ in range(10):
            file.seek(rng.randrange(size))
            file.write((b"%d " % rng.randrange(100) * 40000)[:size - file.tell()])
    version, cluster, bits = options_of(rng)
    words = ["--set", f"version={version}", "--set", f"cluster_size={cluster}", "--set", f"refcount_bits={bits}"]
    if version == 3 and rng.random() < 0.5:
        words += ["--set", "compression=zstd"]
    ours("convert", "-c", tmp_path / "a.raw", tmp_path / "a.qcow2", *words)
    qemu("qemu-img", "check", "-f", "qcow2", tmp_path / "a.qcow2")
    ours("check", tmp_path / "a.qcow2")
    qemu("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "a.raw", tmp_path / "a.qcow2")
    ours("convert", tmp_path / "a.qcow2", tmp_path / "b.raw")
    assert (tmp_path / "a.raw").read_bytes() == (tmp_path / "b.raw").read_bytes()


@pytest.mark.parametrize("format_", ["raw", "qcow2", "vhd", "vhdx", "vmdk"])
def test_a_file_that_is_left_to_the_cache_is_the_same(tmp_path, format_):
    rng = random.Random(3000)
    random_raw(tmp_path / "a.raw", rng, 6 * MIB)
    ours("convert", "-O", format_, tmp_path / "a.raw", tmp_path / "synced")
    ours("convert", "--no-sync", "-O", format_, tmp_path / "a.raw", tmp_path / "cached")
    for made in ("synced", "cached"):
        if format_ != "raw":
            ours("check", "-f", format_, tmp_path / made)
        ours("compare", "-f", "raw", "-F", format_, tmp_path / "a.raw", tmp_path / made)


@pytest.mark.parametrize("words", [(), ("--set", "cluster_size=4096"), ("-b", "base.raw", "-F", "raw")])
def test_a_grown_disk_keeps_its_data_and_reads_as_zeroes_behind(tmp_path, words):
    rng = random.Random(7)
    random_raw(tmp_path / "base.raw", rng, 40 * MIB)
    ours("create", tmp_path / "a.qcow2", "3M", *words)
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 1536K", tmp_path / "a.qcow2")
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "a.qcow2", tmp_path / "before.raw")
    ours("resize", "-f", "qcow2", tmp_path / "a.qcow2", "100M")
    qemu("qemu-img", "check", "-f", "qcow2", tmp_path / "a.qcow2")
    ours("check", "-f", "qcow2", tmp_path / "a.qcow2")
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "a.qcow2", tmp_path / "after.raw")
    assert (tmp_path / "after.raw").read_bytes() == (tmp_path / "before.raw").read_bytes() + bytes(97 * MIB)
    assert "would lose data" in ours("resize", "-f", "qcow2", tmp_path / "a.qcow2", "2M", status=1)


def test_an_overlay_shows_the_backing_file_in_both_programs(tmp_path):
    rng = random.Random(5)
    random_raw(tmp_path / "base.raw", rng, 3 * MIB + 512)
    ours("create", "-b", "base.raw", "-F", "raw", tmp_path / "top.qcow2", "5M")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 9 1000448 300032", tmp_path / "top.qcow2")
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", tmp_path / "top.qcow2", tmp_path / "theirs.raw")
    assert "state the image's format" in ours("info", tmp_path / "top.qcow2", status=1)
    ours("convert", "-f", "qcow2", tmp_path / "top.qcow2", tmp_path / "ours.raw")
    assert (tmp_path / "theirs.raw").read_bytes() == (tmp_path / "ours.raw").read_bytes()


def test_a_backing_name_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(4096))
    qemu("qemu-img", "create", "-f", "qcow2", "-b", "../secret.raw", "-F", "raw", tmp_path / "in" / "a.qcow2")
    assert "leaves the folder" in ours("map", "-f", "qcow2", tmp_path / "in" / "a.qcow2", status=1)


def test_info_and_check_do_without_a_backing_file_that_is_missing(tmp_path):
    random_raw(tmp_path / "base.raw", random.Random(6), MIB)
    ours("create", tmp_path / "a.qcow2", "-b", "base.raw", "-F", "raw")
    assert "other_files" not in ours("info", "-f", "qcow2", tmp_path / "a.qcow2")
    (tmp_path / "base.raw").unlink()
    info = json.loads(ours("info", "-f", "qcow2", "-o", "json", tmp_path / "a.qcow2"))
    assert (info["backing_name"], info["virtual_size"]) == ("base.raw", MIB)
    assert "base.raw" in info["other_files"]
    assert "checked alone: " in ours("check", "-f", "qcow2", tmp_path / "a.qcow2")
    checked = json.loads(ours("check", "-f", "qcow2", "-o", "json", "--repair", tmp_path / "a.qcow2"))
    assert checked["errors"] == 0 and "base.raw" in checked["other_files"]
    assert "base.raw" in ours("convert", "-f", "qcow2", tmp_path / "a.qcow2", tmp_path / "b.raw", status=1)
    assert not (tmp_path / "b.raw").exists()
    (tmp_path / "a.qcow2").write_bytes(b"QFI\xfb" + bytes(600))
    assert "version 0" in ours("info", "-f", "qcow2", tmp_path / "a.qcow2", status=1)


def test_check_repairs_a_leak(tmp_path):
    ours("create", tmp_path / "a.qcow2", "64M")
    # The count of cluster 7 (16-bit counts, block at cluster 2 of 64 KiB).
    with open(tmp_path / "a.qcow2", "r+b") as file:
        file.truncate(8 * 65536)
        file.seek(2 * 65536 + 7 * 2)
        file.write(b"\0\1")
    assert "1 leaked" in ours("check", tmp_path / "a.qcow2", status=3)
    ours("check", "--repair", tmp_path / "a.qcow2")
    ours("check", tmp_path / "a.qcow2")
    qemu("qemu-img", "check", "-f", "qcow2", tmp_path / "a.qcow2")


@pytest.mark.parametrize("at,bytes_", [(4, b"\0\0\0\4"), (20, b"\0\0\0\40"), (40, b"\0\0\1\0\0\0\0\0"), (72, b"\1" + bytes(7))])
def test_a_header_that_makes_no_sense_is_one_clear_error(tmp_path, at, bytes_):
    ours("create", tmp_path / "a.qcow2", "64M")
    with open(tmp_path / "a.qcow2", "r+b") as file:
        file.seek(at)
        file.write(bytes_)
    assert f"byte {at}" in ours("info", "-f", "qcow2", tmp_path / "a.qcow2", status=1)
