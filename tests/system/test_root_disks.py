"""Debian on a root disk of every format and on every bus. It writes to a database and installs packages, says of each row when it is safe, and
is killed in the middle of that, or its disk moves between formats: the file system is clean behind it and no row is lost."""
import random
import re
import signal
import subprocess
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, SLOW, run, wait_until_listening

pytestmark = pytest.mark.skipif(not SLOW, reason="a Debian of its own, and minutes each (tools/dev slow -k root_disks)")

IMAGE = ROOT / ".cache/root/root.img"
FORMATS = ["qcow2", "vmdk", "vhd", "vhdx"]
BUSES = ["virtio", "nvme", "sata"]
KILLS = 20
# Of one wait, in seconds: far more than any needs, as a busy host makes it slow and never wrong.
LIMIT = 1800


@pytest.fixture(scope="module", autouse=True)
def root_image():
    subprocess.run([ROOT / "tools/root_image"], check=True)


def make_disk(folder, image_format):
    disk = folder / f"root.{image_format}"
    subprocess.run([BULKHEAD, "image", "convert", "-f", "raw", IMAGE, disk, "-O", image_format], check=True, capture_output=True)
    return disk


def arguments(disk, image_format, bus, words, *more):
    folder = GUESTS / "amd64"
    return ["run", "--engine", "soft", "--memory", "512M", "--kernel", folder / "vmlinuz", "--initrd", folder / "disks-initrd",
            "--cmdline", f"console=ttyS0 panic=-1 quiet task=debian debian.label=root {words}", "--disk", f"file={disk},format={image_format},bus={bus}", *more]


def check_file_system(folder, disk, image_format):
    """What the journal has is played back, and then nothing is left to be mended."""
    checked = subprocess.run([BULKHEAD, "image", "check", "-f", image_format, disk], capture_output=True, text=True)
    assert checked.returncode in (0, 3), checked.stdout + checked.stderr  # 3: space is lost, no data
    raw = folder / "found.raw"
    subprocess.run([BULKHEAD, "image", "convert", "-f", image_format, disk, raw, "-O", "raw"], check=True, capture_output=True)
    played = subprocess.run(["e2fsck", "-p", raw], capture_output=True, text=True)
    assert played.returncode in (0, 1), played.stdout + played.stderr
    checked = subprocess.run(["e2fsck", "-fn", raw], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    raw.unlink()


@pytest.mark.parametrize("bus", BUSES)
@pytest.mark.parametrize("image_format", FORMATS)
def test_debian_boots_from_it(tmp_path, image_format, bus):
    disk = make_disk(tmp_path, image_format)
    vm = run(arguments(disk, image_format, bus, "root.task=work root.rows=16"), timeout=LIMIT)
    device = {"virtio": "/dev/vda", "nvme": "/dev/nvme0n1", "sata": "/dev/sda"}[bus]
    assert vm.status == 0 and f"root is {device} ext4 rw" in vm.output and "ROOT DONE" in vm.output, vm.describe()
    assert "hello: Hello, world!" in vm.output and "rows that are whole: 16 of 16" in vm.output, vm.describe()
    check_file_system(tmp_path, disk, image_format)


class Worker:
    """A machine at work, whose console goes to a file."""

    def __init__(self, folder, disk, image_format, bus, words="root.task=work", *more):
        self.log = folder / "log"
        with self.log.open("wb") as log:
            command = [str(word) for word in (BULKHEAD, *arguments(disk, image_format, bus, words, *more))]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self):
        return self.log.read_text(errors="replace")

    def safe(self):
        return max([int(number) for number in re.findall(r"safe: (\d+)", self.said())], default=0)

    def wait_for(self, condition, seconds=LIMIT):
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.1)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def test_killed_in_the_middle_of_its_work_it_loses_nothing(tmp_path):
    chance = random.Random(4)
    safe = 0
    for number in range(KILLS):
        image_format, bus = FORMATS[number % len(FORMATS)], BUSES[number % len(BUSES)]
        # The disk goes on through all formats with what is on it.
        disk, before = tmp_path / f"disk{number}.{image_format}", tmp_path / f"disk{number - 1}.{FORMATS[(number - 1) % len(FORMATS)]}"
        source, source_format = (before, before.suffix[1:]) if number else (IMAGE, "raw")
        subprocess.run([BULKHEAD, "image", "convert", "-f", source_format, source, disk, "-O", image_format], check=True, capture_output=True)
        if number:
            before.unlink()
        worker = Worker(tmp_path, disk, image_format, bus)
        try:
            worker.wait_for(lambda: worker.safe() >= safe + 4)
            time.sleep(chance.random() * 4)
        finally:
            worker.kill()
        first = re.search(r"database: (\w+) (\d+) rows, last (\d+)", worker.said())
        assert first and first[1] == "ok" and int(first[2]) == int(first[3]) >= safe, worker.said()[-3000:]
        safe = worker.safe()
        check_file_system(tmp_path, disk, image_format)
    vm = run(arguments(disk, image_format, bus, "root.task=boot"), timeout=LIMIT)
    found = re.search(r"database: ok (\d+) rows, last (\d+)", vm.output)
    assert found and int(found[1]) >= safe and "packages: 0 lines of complaints" in vm.output, vm.describe()


def test_its_disk_moves_between_two_formats_while_it_works(tmp_path):
    disk, control = make_disk(tmp_path, "qcow2"), tmp_path / "control"
    worker = Worker(tmp_path, disk, "qcow2", "virtio", "root.task=work", "--control", control)
    try:
        wait_until_listening(control)
        worker.wait_for(lambda: worker.safe() >= 2)
        for number in range(10):
            image_format = ["vhdx", "qcow2"][number % 2]
            moved, safe = tmp_path / f"moved{number}.{image_format}", worker.safe()
            done = subprocess.run([BULKHEAD, "disk", "mirror", "0", moved, "-f", image_format, "--control", control], capture_output=True,
                                  text=True, timeout=LIMIT)
            assert done.returncode == 0, done.stdout + done.stderr + worker.said()[-2000:]
            disk.unlink()
            disk = moved
            worker.wait_for(lambda: worker.safe() >= safe + 2)
        rows = worker.safe() + 1
    finally:
        worker.kill()
    said = worker.said().replace("errors=remount-ro", "")  # an option of the root's mount
    assert "malformed" not in said and "error" not in said.lower(), said[-3000:]
    for whole, of in re.findall(r"rows that are whole: (\d+) of (\d+)", worker.said()):
        assert whole == of
    check_file_system(tmp_path, disk, image_format)
    vm = run(arguments(disk, image_format, "virtio", "root.task=boot"), timeout=LIMIT)
    found = re.search(r"database: ok (\d+) rows", vm.output)
    assert found and int(found[1]) >= rows - 1, vm.describe()
