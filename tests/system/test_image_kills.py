"""Images whose server is killed (SIGKILL) at random points of random work: what was flushed is there, and the image opens and is clean by itself."""

import os
import pathlib
import random
import socket
import struct
import subprocess
import time

import pytest

from bulkhead import BULKHEAD, SLOW

KILLS = 200 if SLOW else 6
SECTOR, SECTORS = 512, 6144
READ, WRITE, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 3, 4, 6
SHAPES = [("raw", []), ("qcow2", ["--set", "cluster_size=4096"]), ("vhd", ["--set", "block_size=65536"]), ("vhdx", ["--set", "block_size=1048576"]),
          ("vmdk", [])]


class Server:
    """An image served to one NBD client; the protocol is in the NBD project's doc/proto.md."""

    def __init__(self, folder, image_format, image, disk_size=SECTORS * SECTOR):
        (folder / "socket").unlink(missing_ok=True)
        self.process = subprocess.Popen([str(BULKHEAD), "image", "serve", "-f", image_format, "--socket", folder / "socket", image],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().startswith("nbd"), "the image does not open"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(120)
        self.socket.connect(str(folder / "socket"))
        assert self.take(16) == b"NBDMAGICIHAVEOPT"
        self.take(2)
        self.socket.sendall(struct.pack(">I8sII", 3, b"IHAVEOPT", 1, 0))  # fixed newstyle, no zeroes; the export without a name
        size, _ = struct.unpack(">QH", self.take(10))
        assert size == disk_size

    def take(self, size):
        taken = bytearray()
        while len(taken) < size:
            part = self.socket.recv(size - len(taken))
            assert part, "the server has closed the connection"
            taken += part
        return bytes(taken)

    def send(self, kind, sector=0, count=0, payload=b""):
        self.socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, kind, 0, sector * SECTOR, count * SECTOR) + payload)

    def ask(self, kind, sector=0, count=0, payload=b""):
        self.send(kind, sector, count, payload)
        magic, error, _ = struct.unpack(">IIQ", self.take(16))
        assert (magic, error) == (0x67446698, 0)
        return self.take(count * SECTOR) if kind == READ else b""

    def end(self):
        self.socket.close()
        self.process.terminate()
        assert self.process.wait(120) == 0

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.socket.close()


class Disk:
    """What may be found in each sector: a word that fills it, or one of several."""

    def __init__(self):
        self.now = [{0}] * SECTORS  # if nothing happens
        self.found = [{0}] * SECTORS  # behind a kill
        self.word = 0

    def request(self, rng):
        """One that changes something: its kind, where, how much, the word, the bytes."""
        count = rng.randint(1, 400 if rng.random() < 0.25 else 24)
        sector = rng.randrange(SECTORS - count)
        kind = rng.choice([WRITE, WRITE, WRITE, WRITE, TRIM, WRITE_ZEROES])
        self.word += 1
        word = self.word if kind == WRITE else 0
        for at in range(sector, sector + count):
            self.found[at] = self.found[at] | {word}
        return kind, sector, count, word, struct.pack("<I", word) * (SECTOR // 4 * count) if kind == WRITE else b""

    def answered(self, kind, sector, count, word):
        for at in range(sector, sector + count):
            self.now[at] = self.now[at] | {word} if kind == TRIM else {word}

    def flushed(self):
        self.found = list(self.now)

    def compare(self, contents):
        for at in range(SECTORS):
            sector = contents[at * SECTOR:(at + 1) * SECTOR]
            word, = struct.unpack_from("<I", sector)
            assert sector == sector[:4] * (SECTOR // 4), f"sector {at} is torn"
            assert word in self.found[at], f"sector {at} holds {word}, not one of {self.found[at]}"
            self.now[at] = {word}
        self.flushed()


def work(server, disk, rng):
    for _ in range(rng.randint(0, 25)):
        if rng.random() < 0.2:
            server.ask(FLUSH)
            disk.flushed()
            continue
        kind, sector, count, word, payload = disk.request(rng)
        server.ask(kind, sector, count, payload)
        disk.answered(kind, sector, count, word)
    # Nobody waits for these.
    for _ in range(rng.randint(1, 6)):
        if rng.random() < 0.4:
            server.send(FLUSH)
            continue
        kind, sector, count, _, payload = disk.request(rng)
        server.send(kind, sector, count, payload)
    time.sleep(rng.random() ** 3 * 0.01)


@pytest.mark.parametrize("shape", SHAPES, ids=[shape[0] for shape in SHAPES])
def test_a_killed_server_loses_nothing_that_was_flushed(tmp_path, shape):
    image_format, settings = shape
    rng, disk, image = random.Random(image_format), Disk(), tmp_path / "image"
    subprocess.run([BULKHEAD, "image", "create", "-f", image_format, image, str(SECTORS * SECTOR), *settings], check=True, timeout=120)
    for number in range(KILLS):
        server = Server(tmp_path, image_format, image)
        try:
            disk.compare(server.ask(READ, 0, SECTORS))
            if number % 4 == 3 and image_format != "raw":
                # What it has become by having been opened, without what opening it again would set right.
                server.end()
                checked = subprocess.run([BULKHEAD, "image", "check", "-f", image_format, image], capture_output=True, text=True, timeout=120, check=False)
                assert checked.returncode in (0, 3), checked.stdout + checked.stderr  # 3: space is lost, no data
                server = Server(tmp_path, image_format, image)
            work(server, disk, rng)
        finally:
            server.kill()
    server = Server(tmp_path, image_format, image)
    try:
        disk.compare(server.ask(READ, 0, SECTORS))
    finally:
        server.kill()


@pytest.mark.parametrize("shape", SHAPES, ids=[shape[0] for shape in SHAPES])
def test_a_disk_of_a_terabyte_opens_within_a_second_after_a_kill(tmp_path, shape):
    """Of processor time, which other work on the host does not change; with the defaults of each format."""
    image_format, _ = shape
    size, rng, image = 1 << 40, random.Random(image_format), tmp_path / "image"
    subprocess.run([BULKHEAD, "image", "create", "-f", image_format, image, str(size)], check=True, timeout=120)
    server = Server(tmp_path, image_format, image, size)
    try:
        for number in range(3000 if SLOW else 300):
            server.ask(WRITE, rng.randrange(size // 4096) * 8, 8, bytes([number % 255 + 1]) * 4096)
        server.ask(FLUSH)
        for number in range(40):
            server.send(WRITE, rng.randrange(size // 4096) * 8, 8, bytes(4096))
    finally:
        server.kill()
    server = Server(tmp_path, image_format, image, size)
    seconds = sum(int(word) for word in pathlib.Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
    seconds /= os.sysconf("SC_CLK_TCK")
    server.end()
    assert seconds <= 1, f"{image_format}: {seconds} s to open"
