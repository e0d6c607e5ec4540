"""Thick images: the storage of the host is there from the beginning, qemu-img finds the same contents and nothing wrong, and a full host is said and
left clean."""
import os
import random
import shutil
import subprocess

import pytest

from bulkhead import BULKHEAD
from test_image import MIB, ours, qemu, random_raw

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

# Name, format here, settings, format there (None: this one has none), whether qemu-img can check it.
KINDS = [
    ("raw", "raw", [], "raw", False),
    ("qcow2", "qcow2", [], "qcow2", True),
    ("qcow2-small", "qcow2", ["cluster_size=512", "refcount_bits=1"], "qcow2", True),
    ("qcow2-large", "qcow2", ["cluster_size=2097152", "refcount_bits=64"], "qcow2", True),
    ("vhd", "vhd", ["subformat=fixed"], "vpc", False),
    ("vhdx", "vhdx", ["subformat=fixed", "block_size=1048576"], "vhdx", True),
    ("vmdk", "vmdk", ["subformat=monolithicFlat"], "vmdk", False),
    ("vmdk-split", "vmdk", ["subformat=twoGbMaxExtentFlat", "extent_size=2097152"], "vmdk", False),
]
SIZE = 9 * MIB + 512


def on_the_disk(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def words_of(settings, preallocation):
    return [word for setting in [*settings, f"preallocation={preallocation}"] for word in ("--set", setting)]


@pytest.mark.parametrize("kind", KINDS, ids=[kind[0] for kind in KINDS])
@pytest.mark.parametrize("preallocation", ["off", "metadata", "falloc", "full"])
def test_storage_is_taken_and_contents_are_the_same(tmp_path, kind, preallocation):
    name, format_, settings, theirs, can_check = kind
    if preallocation == "metadata" and format_ != "qcow2":
        assert "allowed are off, falloc, full" in ours("create", "-f", format_, tmp_path / "a.image", "1M", *words_of(settings, preallocation), status=1)
        assert not any(tmp_path.iterdir())
        return
    rng = random.Random(f"{name} {preallocation}")
    source, made, converted = tmp_path / "source.raw", tmp_path / "made", tmp_path / "converted"
    made.mkdir(), converted.mkdir()
    random_raw(source, rng, SIZE)
    ours("create", "-f", format_, made / "a.image", SIZE, *words_of(settings, preallocation))
    ours("convert", "-q", source, converted / "a.image", "-O", format_, *words_of(settings, preallocation))
    with open(tmp_path / "zero.raw", "wb") as file:
        file.truncate(SIZE)
    for folder, contents in ((made, tmp_path / "zero.raw"), (converted, source)):
        image = folder / "a.image"
        if preallocation in ("falloc", "full"):
            assert on_the_disk(folder) >= SIZE
        elif folder == made and name != "qcow2-large":  # whose tables are clusters of 2 MiB
            assert on_the_disk(folder) < SIZE // 2
        assert f"allocated_bytes: {on_the_disk(folder)}\n" in ours("info", "-f", format_, image)
        if can_check:
            qemu("qemu-img", "check", "-f", theirs, image)
        if format_ != "raw":
            ours("check", "-f", format_, image)
        ours("compare", "-f", format_, "-F", "raw", image, contents)
        # VHD's geometry rounds the size in qemu-img's eyes.
        if theirs != "vpc":
            qemu("qemu-img", "compare", "-f", theirs, "-F", "raw", image, contents)
    if format_ == "qcow2" and preallocation != "off":
        # A write finds its place there.
        before = os.stat(made / "a.image").st_size
        qemu("qemu-io", "-f", "qcow2", "-c", f"write -P 7 {MIB} 3M", made / "a.image")
        qemu("qemu-img", "check", "-f", "qcow2", made / "a.image")
        assert os.stat(made / "a.image").st_size == before


def test_what_is_compressed_cannot_be_thick(tmp_path):
    ours("create", tmp_path / "a.raw", "1M")
    assert "leave preallocation out" in ours("convert", tmp_path / "a.raw", tmp_path / "a.qcow2", "-c", "--set", "preallocation=full", status=1)
    assert not (tmp_path / "a.qcow2").exists()


@pytest.mark.parametrize("verb", ["create", "convert"])
@pytest.mark.parametrize("preallocation", ["falloc", "full"])
def test_a_full_host_is_said_and_nothing_is_left(tmp_path, verb, preallocation):
    mount = tmp_path / "small"
    mount.mkdir()
    with open(tmp_path / "source.raw", "wb") as file:
        file.truncate(16 * MIB)
    for name, format_, settings, _, _ in KINDS:
        if name in ("qcow2-small", "qcow2-large"):
            continue
        words = [verb, "-f", format_, "image", "16M"] if verb == "create" else [verb, "-q", tmp_path / "source.raw", "image", "-O", format_]
        script = f"mount -t tmpfs -o size=8M none '{mount}' && cd '{mount}' && \"$@\"; echo status $?; ls -A"
        done = subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(BULKHEAD), "image", *map(str, words),
                               *words_of(settings, preallocation)], capture_output=True, text=True, timeout=120)
        assert done.stdout == "status 1\n", f"{name}: {done.stdout}{done.stderr}"
        assert "no space" in done.stderr, f"{name}: {done.stderr}"
