"""Debian's kernels reach user space on the soft engine, with nothing to complain about."""
import shutil
import subprocess

import pytest

from bulkhead import BULKHEAD, GUESTS, SLOW, debian_arguments, run, run_debian


@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize("flavour", ["cloud", "amd64", "rt"])
def test_debian_reaches_user_space(flavour, cpus):
    arguments = debian_arguments(flavour=flavour, cpus=cpus)
    if flavour != "cloud" and cpus > 1 and not SLOW:
        # Two thirds of these boots is unpacking XZ, the same work whatever the number of vCPUs: start from the unpacked kernel.
        arguments[arguments.index("--kernel") + 1] = GUESTS / flavour / "vmlinux"
    result = run(arguments, timeout=240)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert result.status == 0, result.describe()
    assert result.field("cpus") == str(cpus), result.describe()
    assert not result.complaints(), result.describe()


@pytest.mark.parametrize("image,protocol", [("vmlinuz", "linux64"), ("vmlinuz", "linux32"), ("vmlinux", "pvh")])
def test_every_way_to_boot_linux_works(image, protocol, tmp_path):
    arguments = debian_arguments()
    arguments[arguments.index("--kernel") + 1] = GUESTS / "cloud" / image
    result = run([*arguments, "--boot-protocol", protocol], timeout=180)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("model", ["x86-64-v1", "x86-64-v2", "x86-64-v3"])
def test_every_cpu_model_boots(model):
    result = run_debian(extra=["--cpu-model", model])
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert not result.complaints(), result.describe()


def test_the_guest_uses_the_disk(tmp_path):
    disk = tmp_path / "disk.img"
    shutil.copy(GUESTS / "disk.img", disk)
    result = run_debian(task="demo", cpus=2, extra=["--disk", disk])
    assert "disk: read back what was written" in result.output, result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")
@pytest.mark.parametrize("cache", ["writeback", "writethrough", "none", "writeback,iops=400,bps=4M,bps-burst=1M,group=all"])
def test_the_guest_uses_a_qcow2_disk(tmp_path, cache):
    disk, ours, theirs = tmp_path / "disk.qcow2", tmp_path / "ours.raw", tmp_path / "theirs.raw"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", GUESTS / "disk.img", disk], check=True)
    result = run_debian(task="demo", cpus=2, extra=["--disk", f"file={disk},format=qcow2,serial=QCOW,cache={cache}",
                                                        "--disk-group", "all,iops=300"])
    assert "disk: read back what was written" in result.output, result.describe()
    assert result.status == 0 and not result.complaints(), result.describe()
    subprocess.run(["qemu-img", "check", "-f", "qcow2", disk], check=True)
    subprocess.run([BULKHEAD, "image", "check", "-f", "qcow2", disk], check=True)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, theirs], check=True)
    subprocess.run([BULKHEAD, "image", "convert", "-f", "qcow2", disk, ours], check=True)
    assert ours.read_bytes() == theirs.read_bytes()
    assert ours.read_bytes() != (GUESTS / "disk.img").read_bytes()
    subprocess.run(["e2fsck", "-fn", ours], check=True)
    shown = subprocess.run(["debugfs", "-R", "cat /hello.txt", ours], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() and shown.stdout.strip() in result.output


def test_a_qcow2_disk_is_not_taken_for_a_raw_one(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"QFI\xfb" + bytes(65532))
    result = run_debian(extra=["--disk", disk])
    assert result.status not in (0, None), result.describe()
    assert "looks like a qcow2 image; state format=qcow2 or format=raw" in result.errors


def test_a_read_only_disk_stays_as_it_is(tmp_path):
    disk = tmp_path / "disk.img"
    shutil.copy(GUESTS / "disk.img", disk)
    before = disk.read_bytes()
    result = run_debian(task="demo", extra=["--disk", f"{disk},ro"])
    assert "DEMO DONE" in result.output, result.describe()
    assert "read back what was written" not in result.output
    assert disk.read_bytes() == before
