"""What bulkhead image takes for an image, what it says as JSON, and how it ends."""

import json
import os
import resource
import subprocess

import pytest

from bulkhead import BULKHEAD
from test_image import MIB, ours

DESCRIPTOR = '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType="vmfs"\nRW 2048 VMFS "disk-flat.vmdk"\n'


def test_a_descriptor_is_no_disk_of_its_own(tmp_path):
    (tmp_path / "disk.vmdk").write_text(DESCRIPTOR)
    (tmp_path / "disk-flat.vmdk").write_bytes(b"\5" * MIB)
    for words in (("info", tmp_path / "disk.vmdk"), ("convert", tmp_path / "disk.vmdk", tmp_path / "copy.raw")):
        assert "state the image's format" in ours(*words, status=1)
    assert not (tmp_path / "copy.raw").exists()
    ours("convert", "-f", "vmdk", tmp_path / "disk.vmdk", tmp_path / "copy.raw")
    assert (tmp_path / "copy.raw").read_bytes() == b"\5" * MIB


def test_a_fixed_vhd_is_known_whatever_its_name(tmp_path):
    ours("create", "-f", "vhd", tmp_path / "disk.img", "1M", "--set", "subformat=fixed")
    assert json.loads(ours("info", "-o", "json", tmp_path / "disk.img"))["format"] == "vhd"


def test_text_stays_text_in_json(tmp_path):
    ours("create", "-f", "raw", tmp_path / "0001", "1M")
    made = ours("create", "-o", "json", "-b", "0001", "-F", "raw", tmp_path / "Prüfstand.qcow2")
    assert json.loads(made)["file"] == str(tmp_path / "Prüfstand.qcow2")
    found = json.loads(ours("info", "-o", "json", "-f", "qcow2", tmp_path / "Prüfstand.qcow2"))
    assert found["backing_name"] == "0001" and found["virtual_size"] == MIB and found["cluster_size"] == 65536
    path = os.fsencode(tmp_path) + b"/\xff.raw"
    done = subprocess.run([BULKHEAD, "image", "create", "-o", "json", path, "1M"], check=True, capture_output=True)
    assert json.loads(done.stdout.decode())["file"] == f"{tmp_path}/\ufffd.raw"


def test_check_tells_in_json_what_it_found(tmp_path):
    image = tmp_path / "a.qcow2"
    ours("create", image, "64M")
    with open(image, "r+b") as file:  # the count of cluster 7, which nothing uses
        file.truncate(8 * 65536)
        file.seek(2 * 65536 + 7 * 2)
        file.write(b"\0\1")
    found = json.loads(ours("check", "-o", "json", image, status=3))
    assert found["leaks"] == 1 and len(found["messages"]) == 1


def test_wrong_options_are_told_apart_from_what_was_found(tmp_path):
    for name, byte in (("a.raw", b"\1"), ("b.raw", b"\2")):
        (tmp_path / name).write_bytes(byte * MIB)
    assert "differ at byte 0" in ours("compare", tmp_path / "a.raw", tmp_path / "b.raw", status=2)
    ours("compare", tmp_path / "a.raw", "--frobnicate", status=1)
    ours("check", status=1)


def test_an_image_may_have_more_files_than_a_process_is_given(tmp_path):
    ours("create", "-f", "vmdk", tmp_path / "a.vmdk", "200M", "--set", "subformat=twoGbMaxExtentFlat", "extent_size=1048576")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = subprocess.run([BULKHEAD, "image", "info", "-o", "json", "-f", "vmdk", tmp_path / "a.vmdk"], capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard)))
    assert done.returncode == 0 and json.loads(done.stdout)["extents"] == 200, done.stderr


@pytest.mark.parametrize("verb", ["info", "check"])
def test_a_fifo_is_refused_and_not_waited_for(tmp_path, verb):
    os.mkfifo(tmp_path / "fifo")
    for words in ((), ("-f", "qcow2")):
        assert "neither a regular file nor a block device" in ours(verb, *words, tmp_path / "fifo", status=1)


@pytest.fixture
def block_device(tmp_path):
    (tmp_path / "device").write_bytes(b"\xee" * 4 * MIB)
    made = subprocess.run(["losetup", "--find", "--show", tmp_path / "device"], capture_output=True, text=True)
    if made.returncode != 0:
        pytest.skip("no loop devices")
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_a_block_device_is_written_over_whole(tmp_path, block_device):
    contents = bytes(MIB) + b"\7" * MIB + bytes(MIB)
    (tmp_path / "a.raw").write_bytes(contents)
    assert "its format is raw" in ours("convert", "-O", "qcow2", tmp_path / "a.raw", block_device, status=1)
    ours("convert", tmp_path / "a.raw", block_device)
    with open(block_device, "rb") as file:
        assert file.read() == contents + bytes(MIB)
