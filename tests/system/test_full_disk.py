"""A host whose storage is full: the machine waits with a message, goes on when there is room, and loses nothing; or the guest is told."""
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, SLOW, debian_arguments, disks_arguments, wait_until_listening

MIB = 1 << 20


class FullHost:
    """A VM whose disk lies on a tmpfs of its own without a free page."""

    def __init__(self, folder, image_format, on_error, bus="virtio"):
        self.folder, self.mount = folder, folder / "full"
        self.mount.mkdir()
        self.control = folder / "control"
        image = folder / f"disk.{image_format}"
        if image_format == "raw":
            subprocess.run(["cp", "--sparse=always", GUESTS / "disk.img", image], check=True)
        else:
            subprocess.run([BULKHEAD, "image", "convert", "-f", "raw", "-O", image_format, GUESTS / "disk.img", image], check=True)
        more = ["--disk", f"file={self.mount}/disk,format={image_format},on-error={on_error},bus={bus}", "--control", self.control]
        # The guest with drivers of other buses writes more.
        arguments, room = (debian_arguments(task="demo", extra=more), 8) if bus == "virtio" else (disks_arguments(["bulkhead"], *more), 24)
        script = f"""set -e
            mount -t tmpfs -o size={image.stat().st_blocks * 512 // MIB + room}M none '{self.mount}'
            cp --sparse=always '{image}' '{self.mount}/disk'
            dd if=/dev/zero of='{self.mount}/filler' bs=4k 2>/dev/null || true
            exec "$@" """
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(BULKHEAD),
                                             *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self):
        return self.log.read_text(errors="replace")

    def ask(self, word):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            control.connect(str(self.control))
            control.sendall(word.encode() + b"\n")
            return control.recv(4096).decode().strip()

    def wait_for(self, condition, limit=180):
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()[-3000:]
            time.sleep(0.05)

    def wait_until_it_waits(self):
        wait_until_listening(self.control)
        self.wait_for(lambda: self.ask("status").startswith("paused: "))

    def wait_until_it_ends(self):
        """A request that failed while there was no room may be heard of only now, and the machine wait once more."""
        deadline = time.monotonic() + 180
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said()[-3000:]
            try:
                if self.ask("status").startswith("paused: "):
                    self.ask("resume")
            except OSError:  # it has ended
                pass
            time.sleep(0.2)
        assert self.process.returncode == 0, self.said()[-3000:]

    def make_room(self):
        # The file system is seen through the process that lives in it.
        os.unlink(f"/proc/{self.process.pid}/root{self.mount}/filler")


@pytest.fixture
def full_host():
    hosts = []
    with tempfile.TemporaryDirectory(prefix="full-") as folder:

        def start(*words):
            hosts.append(FullHost(pathlib.Path(folder), *words))
            return hosts[0]

        yield start
        for host in hosts:
            host.process.kill()
            host.process.wait()


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "vhdx"])
def test_a_full_disk_pauses_the_machine_until_there_is_room(full_host, image_format):
    host = full_host(image_format, "enospc")
    host.wait_until_it_waits()
    status = host.ask("status")
    assert "no space" in status and f"{host.mount}/disk" in status and " at byte " in status or "flush" in status, status
    assert "paused: disk" in host.said()
    # Without room it waits again.
    assert subprocess.run([BULKHEAD, "resume", "--control", host.control], timeout=60, check=False).returncode == 0
    host.wait_for(lambda: host.said().count("paused: disk") >= 2)
    host.make_room()
    assert host.ask("resume") == "done"
    host.wait_until_it_ends()
    assert "disk: read back what was written" in host.said()


@pytest.mark.parametrize("bus", ["nvme", "sata"])
def test_drivers_that_count_the_seconds_of_a_request_do_not_hear_of_the_pause(full_host, bus):
    host = full_host("qcow2", "enospc", bus)
    host.wait_until_it_waits()
    assert "no space" in host.ask("status")
    if SLOW:
        time.sleep(45)  # both drivers give a request 30 s
    host.make_room()
    assert host.ask("resume") == "done"
    host.wait_until_it_ends()
    said = host.said()
    assert "complaints: 0" in said and re.search(r"bulkhead read back: \w{64}", said) and "DISKS DONE" in said, said[-3000:]


def test_a_machine_that_waits_for_a_disk_can_be_ended(full_host):
    host = full_host("raw", "pause")
    host.wait_until_it_waits()
    assert host.ask("quit") == "done"
    assert host.process.wait(timeout=60) == 0, host.said()[-3000:]


def test_the_guest_is_told_where_that_is_wanted(full_host):
    host = full_host("raw", "report")
    assert host.process.wait(timeout=180) is not None
    assert "paused" not in host.said()
    assert "error" in host.said(), host.said()[-3000:]


@pytest.mark.parametrize("bus", ["nvme", "sata"])
def test_other_drivers_are_told_too_and_go_on(full_host, bus):
    host = full_host("raw", "report", bus)
    assert host.process.wait(timeout=180) == 0, host.said()[-3000:]
    said = host.said()
    assert "paused" not in said and "DISKS DONE" in said, said[-3000:]
    assert int(re.search(r"complaints: (\d+)", said)[1]) > 0, said[-3000:]


def test_a_machine_is_paused_and_goes_on(tmp_path):
    with tempfile.TemporaryDirectory(prefix="pause-") as folder:
        control = pathlib.Path(folder) / "control"
        arguments = debian_arguments(task="demo", extra=["--control", control])
        process = subprocess.Popen([str(BULKHEAD), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            wait_until_listening(control)
            for verb, state in [("pause", b"paused\n"), ("resume", b"running\n")]:
                subprocess.run([BULKHEAD, verb, "--control", control], timeout=60, check=True)
                deadline, answer = time.monotonic() + 60, b""
                while answer != state:
                    assert time.monotonic() < deadline, answer
                    with socket.socket(socket.AF_UNIX) as client:
                        client.connect(str(control))
                        client.sendall(b"status\n")
                        answer = client.recv(4096)
            output, _ = process.communicate(timeout=180)
            assert b"DEMO DONE" in output
        finally:
            process.kill()
            process.wait()
