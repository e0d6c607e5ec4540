"""Disks on virtio, NVMe and SATA, in every format, and a CD: a Debian guest reads what the host wrote and the host what the guest wrote."""

import hashlib
import os
import subprocess

import pytest

from bulkhead import BULKHEAD, disks_arguments, run, run_debian

FORMATS = ["raw", "qcow2", "vmdk", "vhd", "vhdx"]
BUSES = ["virtio", "nvme", "sata"]


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_ext4(folder, label, megabytes=24):
    """A raw ext4 with one file of random bytes; the file's digest."""
    source = folder / f"{label}.d"
    source.mkdir()
    (source / "from-host").write_bytes(os.urandom(100_000))
    raw = folder / f"{label}.raw"
    with open(raw, "wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-L", label, "-d", source, raw], check=True)
    return raw, sha256(source / "from-host")


def check_host_side(folder, image, format_, label, written):
    raw = folder / f"{label}-after.raw"
    if format_ == "raw":
        image.rename(raw)
    else:
        subprocess.run([BULKHEAD, "image", "convert", "-f", format_, image, raw], check=True, capture_output=True)
    checked = subprocess.run(["e2fsck", "-fn", raw], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    found = folder / f"{label}.found"
    subprocess.run(["debugfs", "-R", f"dump /from-guest {found}", raw], check=True, capture_output=True)
    assert sha256(found) == written


def test_two_disks_are_the_namespaces_of_one_nvme_controller(tmp_path):
    arguments, digests, images = [], {}, {}
    for format_ in ["raw", "qcow2"]:
        label = f"shared-{format_}"
        raw, digests[label] = make_ext4(tmp_path, label, 16)
        image = tmp_path / f"{label}.image"
        subprocess.run([BULKHEAD, "image", "convert", raw, image, "-O", format_], check=True, capture_output=True)
        images[label] = (image, format_)
        arguments += ["--disk", f"file={image},format={format_},bus=nvme,controller=pool"]
    vm = run(disks_arguments(images, *arguments), timeout=600)
    assert vm.status == 0 and "DISKS DONE" in vm.output, vm.describe()
    assert vm.field("complaints") == "0", vm.describe()
    assert {vm.field(f"{label} device") for label in images} == {"nvme0n1", "nvme0n2"}, vm.describe()
    for label, (image, format_) in images.items():
        assert vm.field(f"{label} from host") == digests[label], vm.describe()
        check_host_side(tmp_path, image, format_, label, vm.field(f"{label} read back"))


@pytest.mark.parametrize("bus", BUSES)
def test_a_guest_uses_disks_of_every_format(tmp_path, bus):
    arguments, digests, images = [], {}, {}
    for format_ in FORMATS:
        label = f"{bus}-{format_}"
        raw, digests[label] = make_ext4(tmp_path, label)
        image = tmp_path / f"{label}.image"
        if format_ == "raw":
            raw.rename(image)
        else:
            subprocess.run([BULKHEAD, "image", "convert", raw, image, "-O", format_], check=True, capture_output=True)
        images[label] = (image, format_)
        arguments += ["--disk", f"file={image},format={format_},bus={bus}"]
    cd, cd_digest = make_ext4(tmp_path, "cd", 8)
    vm = run(disks_arguments(images, *arguments, "--cdrom", cd), timeout=600)
    assert vm.status == 0 and "DISKS DONE" in vm.output, vm.describe()
    assert vm.field("complaints") == "0", vm.describe()
    assert vm.field("cd from host") == cd_digest, vm.describe()
    for label, (image, format_) in images.items():
        assert vm.field(f"{label} device").startswith({"virtio": "vd", "nvme": "nvme", "sata": "sd"}[bus])
        assert vm.field(f"{label} from host") == digests[label], vm.describe()
        assert vm.field(f"{label} read back"), vm.describe()
        check_host_side(tmp_path, image, format_, label, vm.field(f"{label} read back"))


@pytest.mark.parametrize("option, queues", [("", ["0", "1"]), (",queues=1", ["0, 1"])])
def test_each_vcpu_has_a_queue_of_a_virtio_disk(tmp_path, option, queues):
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(4 << 20)
    vm = run_debian(task="queues", cpus=2, extra=["--disk", f"file={image}{option}"], timeout=300)
    assert vm.status == 0 and "QUEUES DONE" in vm.output, vm.describe()
    assert [vm.field(f"queue {n}") for n in range(len(queues) + 1)] == [*queues, None], vm.describe()
    for n in range(len(queues)):
        assert int(vm.field(f"virtio0-req.{n} interrupts")) > 0, vm.describe()
    data = image.read_bytes()
    for cpu in range(2):
        assert vm.field(f"cpu {cpu} wrote") == hashlib.sha256(data[cpu << 19:(cpu + 1) << 19]).hexdigest(), vm.describe()
    assert vm.field("complaints") == "0", vm.describe()
