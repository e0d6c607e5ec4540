"""A data diode between Debian guests: what a taken-over receiver tries, and that not one byte of it arrives."""
import pathlib
import re
import struct
import subprocess
import tempfile
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, SLOW
from switch_process import Switch

DIODE = """
kind: Plant
metadata: {name: diode}
spec:
  switches: {plant: {network: 10.88.0.0/24}}
  zones: {near: {}, far: {}, third: {}}
  services: {samples: udp/5000-5010}
  conduits:
    out: {from: near, to: far, services: [samples], direction: one-way}
    side: {from: third, to: far, services: [ssh, ping]}
  machines:
    sensor: {kernel: k, nics: [{zone: near, address: 10.88.0.1, mac: "02:00:00:00:00:01"}]}
    hostile: {kernel: k, nics: [{zone: far, address: 10.88.0.2, mac: "02:00:00:00:00:02"}]}
    other: {kernel: k, nics: [{zone: third, address: 10.88.0.3, mac: "02:00:00:00:00:03"}]}
  mirrors:
    near: {from: near, pcapng: NEAR, size: 512M}
    far: {from: far, pcapng: FAR, size: 32M}
"""
KINDS = 24
SENT_BY_PORT, SENT_TO_PORT = 1, 2  # a frame's direction as the switch sees it


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="diode-") as made:
        yield pathlib.Path(made)


def blocks(path):
    """Type and body of each block of a pcapng file."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size >= 12 and at + size <= len(data), f"{path}: byte {at}: a block of {size} bytes"
        yield kind, data[at + 8:at + size - 4]
        at += size


def captured(path):
    """Direction and bytes of each frame of a mirror's two files."""
    for file in (path.with_name(path.name + ".1"), path):
        for kind, body in blocks(file) if file.exists() else ():
            if kind != 6:
                continue
            size = struct.unpack_from("<I", body, 12)[0]
            at, direction = 20 + (size + 3) // 4 * 4, None
            while at + 4 <= len(body):
                option, length = struct.unpack_from("<HH", body, at)
                if option == 2:
                    direction = struct.unpack_from("<I", body, at + 4)[0] & 3
                at += 4 + (length + 3) // 4 * 4
            yield direction, body[20:20 + size]


class Guest:
    def __init__(self, folder, switch, name, number, arguments, more=""):
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(BULKHEAD), "run", "--engine", "soft", "--name", name, "--memory", "128M", "--kernel", str(GUESTS / "cloud/vmlinuz"),
                 "--initrd", str(GUESTS / "cloud/initrd"), "--nic", f"switch={switch},port={name}.0,mac=02:00:00:00:00:0{number}{more}", "--cmdline",
                 f"console=ttyS0 quiet panic=-1 task=program plant.address=10.88.0.{number}/24 program=intruder,{','.join(map(str, arguments))}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def said(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, text, limit=300):
        deadline = time.monotonic() + limit
        while text not in self.said():
            assert time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.1)

    def numbers(self, pattern):
        found = re.search(pattern, self.said())
        assert found, self.said()[-3000:]
        return [int(each) for each in found.groups()]

    def reports(self):
        """Of a sensor: samples sent, packets and bytes that came in."""
        return [[int(each) for each in words] for words in re.findall(r"SAMPLES: (\d+) sent, (\d+) packets and (\d+) bytes came in", self.said())]

    def kill(self):
        self.process.kill()
        self.process.wait()


def test_a_hostile_guest_gets_no_byte_through_a_diode(folder):
    seconds = 3600 if SLOW else 6
    near, far = folder / "near.pcapng", folder / "far.pcapng"
    plant = folder / "plant.yaml"
    plant.write_text(DIODE.replace("NEAR", str(near)).replace("FAR", str(far)))
    switch = Switch(plant, folder / "s")
    guests = []
    try:
        guests.append(hostile := Guest(folder, switch.folder, "hostile", 2, ("try", "10.88.0.2", "10.88.0.1", "02:00:00:00:00:01", seconds, 5), ",mtu=9000"))
        guests.append(sensor := Guest(folder, switch.folder, "sensor", 1, ("sample", "10.88.0.2", "02:00:00:00:00:02", 5000)))
        hostile.wait_for("INTRUDER: begins")
        hostile.process.wait(timeout=2 * seconds + 120)
        assert "INTRUDER DONE" in hostile.said(), hostile.said()[-3000:]
        # What the sensor's own kernel has counted since.
        said = len(sensor.reports())
        deadline = time.monotonic() + 120
        while len(sensor.reports()) < said + 2:
            assert time.monotonic() < deadline, sensor.said()[-3000:]
            time.sleep(0.1)
        words = switch.port("sensor.0")
        for line in switch.ask("ports").splitlines():
            print(line)
        memory = switch.memory_kib()
    finally:
        for guest in guests:
            guest.kill()
        status = switch.stop()
    sent, *came_in = sensor.reports()[-1]
    raw, left = hostile.numbers(r"INTRUDER: (\d+) raw frames sent, (\d+) left the card")
    heard, = hostile.numbers(r"INTRUDER: (\d+) samples heard")
    kinds = re.findall(r"INTRUDER: (\d+) sent, \d+ not: (.*?)\r?$", hostile.said(), re.MULTILINE)
    frames = [0, 0]
    arrived = []
    for direction, frame in captured(near):
        assert direction in (SENT_BY_PORT, SENT_TO_PORT)
        frames[direction - 1] += 1
        if direction == SENT_TO_PORT:
            arrived.append(frame)
    tried = sum(direction == SENT_BY_PORT for direction, _ in captured(far))
    print(*re.findall(r"^INTRUDER: .*", hostile.said(), re.MULTILINE), sep="\n")
    print(f"{seconds} s: {sent} samples sent, {heard} heard by the hostile guest; {raw} raw frames of {len(kinds)} kinds, {left} frames left its card "
          f"(the last {tried} in the far mirror); near mirror: {frames[0]} frames sent, {frames[1]} to the sensor, "
          f"{sum(map(len, arrived))} bytes; the switch has {memory} KiB")
    assert not arrived, [frame.hex() for frame in arrived[:5]]
    assert came_in == [0, 0]
    assert words[4] == "0", words
    assert frames[0] >= sent > 0 and heard > 0
    assert len(kinds) == KINDS and all(int(count) > 0 for count, _ in kinds), kinds
    assert tried > 0 and status == 0, switch.said()[-2000:]
