"""bulkhead image serve against the clients of others, libnbd's tools and QEMU's; and disks on a server of QEMU's."""

import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, debian_arguments, wait_until_listening

MIB = 1 << 20
SIZE = 24 * MIB

pytestmark = pytest.mark.skipif(not shutil.which("nbdcopy") or not shutil.which("qemu-io"), reason="needs nbdcopy and qemu-io")


def run(*words, status=0):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300)
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@contextlib.contextmanager
def serving(*words):
    """The URI of an export, which is ended as a service would be."""
    server = subprocess.Popen([str(BULKHEAD), "image", "serve", *map(str, words)], stdout=subprocess.PIPE, text=True)
    try:
        uri = server.stdout.readline().strip()
        assert uri.startswith("nbd"), uri
        yield uri
        server.send_signal(signal.SIGTERM)
        assert server.wait(120) == 0
    finally:
        server.kill()
        server.wait()


def random_raw(path, seed):
    rng = random.Random(seed)
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for _ in range(30):
            file.seek(rng.randrange(SIZE - 400_000))
            file.write(rng.randbytes(rng.randint(1, 400_000)))


def test_others_read_what_we_serve(tmp_path):
    random_raw(tmp_path / "a.raw", 1)
    for format in ("raw", "qcow2", "vmdk", "vhdx"):
        image = tmp_path / f"served.{format}"
        run(BULKHEAD, "image", "convert", "-q", tmp_path / "a.raw", image)
        with serving("-f", format, "--read-only", "--socket", tmp_path / "s", "--export", "plc", image) as uri:
            info = run("nbdinfo", uri)
            for fact in (f"export-size: {SIZE}", "is_read_only: true", "can_multi_conn: true", "base:allocation", "block_size_minimum: 512"):
                assert fact in info, f"{format}: {fact}\n{info}"
            run("nbdcopy", uri, tmp_path / "copy.raw")
            run("cmp", tmp_path / "a.raw", tmp_path / "copy.raw")
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", tmp_path / "a.raw", uri)
            run("nbdinfo", uri.replace("plc", "other"), status=1)
            run("qemu-io", "-f", "raw", "-c", "write 0 4k", uri, status=1)
        assert not (tmp_path / "s").exists()


def test_others_write_what_we_keep(tmp_path):
    random_raw(tmp_path / "a.raw", 2)
    run(BULKHEAD, "image", "create", tmp_path / "b.qcow2", SIZE)
    with serving("-f", "qcow2", "--listen", "127.0.0.1:0", tmp_path / "b.qcow2") as uri:
        run("nbdcopy", tmp_path / "a.raw", uri)
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", tmp_path / "a.raw", uri)
        qemu = ("write -P 0x5a 1M 1M", "write -f -P 0x5b 3M 64k", "write -z 5M 1M", "write -z -u 7M 1M", "discard 9M 1M", "flush",
                "read -P 0x5a 1M 1M", "read -P 0x5b 3M 64k", "read -P 0 5M 1M", "read -P 0 7M 1M")
        run("qemu-io", "-f", "raw", *(word for command in qemu for word in ("-c", command)), uri)
        run("nbdcopy", uri, tmp_path / "now.raw")
    run(BULKHEAD, "image", "check", "-f", "qcow2", tmp_path / "b.qcow2")
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "now.raw", tmp_path / "b.qcow2")


def test_where_data_is_counts_the_whole_chain(tmp_path):
    run(BULKHEAD, "image", "create", tmp_path / "base.qcow2", 2 * MIB)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 64k", tmp_path / "base.qcow2")
    run(BULKHEAD, "image", "create", "-b", "base.qcow2", "-F", "qcow2", tmp_path / "top.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 2 1M 64k", tmp_path / "top.qcow2")
    with serving("-f", "qcow2", "--read-only", "--socket", tmp_path / "s", tmp_path / "top.qcow2") as uri:
        rows = [line.split() for line in run("nbdinfo", "--map", uri).splitlines()]
    assert [(int(row[0]), int(row[1]), int(row[2])) for row in rows] == [
        (0, 65536, 0), (65536, MIB - 65536, 3), (MIB, 65536, 0), (MIB + 65536, MIB - 65536, 3)]


def test_an_image_is_served_by_one_process_and_its_format_is_stated(tmp_path):
    run(BULKHEAD, "image", "create", tmp_path / "a.qcow2", MIB)
    assert "state its format" in run(BULKHEAD, "image", "serve", "--socket", tmp_path / "s", tmp_path / "a.qcow2", status=1)
    assert "--socket PATH or --listen" in run(BULKHEAD, "image", "serve", "-f", "qcow2", tmp_path / "a.qcow2", status=1)
    assert "ADDR:PORT" in run(BULKHEAD, "image", "serve", "-f", "qcow2", "--listen", "localhost:x", tmp_path / "a.qcow2", status=1)
    with serving("-f", "qcow2", "--socket", tmp_path / "s", tmp_path / "a.qcow2"):
        assert "in use" in run(BULKHEAD, "image", "info", tmp_path / "a.qcow2", status=1)


@contextlib.contextmanager
def qemu_serving(socket, image, *words):
    """QEMU's server, which may be killed and started again."""
    server = subprocess.Popen(["qemu-nbd", "-t", "-e", "8", "-x", "plc", "-f", "raw", "-k", str(socket), *words, str(image)])
    try:
        wait_until_listening(socket)
        yield server
    finally:
        server.kill()
        server.wait()
        pathlib.Path(socket).unlink(missing_ok=True)


def test_a_servers_disk_is_an_image_to_us(tmp_path):
    random_raw(tmp_path / "a.raw", 3)
    random_raw(tmp_path / "b.raw", 4)
    uri = f"nbd+unix:///plc?socket={tmp_path}/s"
    with qemu_serving(tmp_path / "s", tmp_path / "b.raw", "--discard=unmap"):
        assert f"virtual_size: {SIZE}" in run(BULKHEAD, "image", "info", uri)
        assert '"equal": false' in run(BULKHEAD, "image", "compare", "-o", "json", tmp_path / "a.raw", uri, status=2)
        run(BULKHEAD, "image", "convert", "-q", tmp_path / "a.raw", uri)
        run(BULKHEAD, "image", "compare", tmp_path / "a.raw", uri)
        run(BULKHEAD, "image", "convert", "-q", uri, tmp_path / "c.qcow2")
        extents = json.loads(run(BULKHEAD, "image", "map", "-o", "json", uri))
        assert sum(extent["size"] for extent in extents) == SIZE
        assert {extent["kind"] for extent in extents} == {"data", "zero"}
        assert "other" in run(BULKHEAD, "image", "info", uri.replace("plc", "other"), status=1)
    run("cmp", tmp_path / "a.raw", tmp_path / "b.raw")
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", tmp_path / "a.raw", tmp_path / "c.qcow2")
    assert (tmp_path / "b.raw").stat().st_blocks * 512 < SIZE, "holes are holes there too"
    assert "such file" in run(BULKHEAD, "image", "info", uri, status=1)


def test_one_of_our_servers_feeds_another(tmp_path):
    random_raw(tmp_path / "a.raw", 5)
    run(BULKHEAD, "image", "create", tmp_path / "b.vhdx", SIZE)
    with serving("-f", "raw", "--read-only", "--socket", tmp_path / "s", tmp_path / "a.raw") as a, \
            serving("-f", "vhdx", "--listen", "127.0.0.1:0", tmp_path / "b.vhdx") as b:
        run(BULKHEAD, "image", "convert", "-q", "-f", "raw", a, b)
        run(BULKHEAD, "image", "compare", a, b)
        assert "lets nobody write" in run(BULKHEAD, "image", "convert", "-q", b, a, status=1)
    run("qemu-img", "compare", "-f", "raw", "-F", "vhdx", tmp_path / "a.raw", tmp_path / "b.vhdx")


class Machine:
    """Debian with a disk of which somebody else may take care."""

    def __init__(self, folder, disk):
        self.control, self.log = folder / "control", folder / "log"
        arguments = debian_arguments(task="demo", extra=["--disk", f"file={disk},format=raw,on-error=pause", "--control", self.control])
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([str(BULKHEAD), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def said(self):
        return self.log.read_text(errors="replace")

    def ask(self, word):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            control.connect(str(self.control))
            control.sendall(word.encode() + b"\n")
            return control.recv(4096).decode().strip()

    def wait_for(self, condition):
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()[-3000:]
            time.sleep(0.1)


@pytest.mark.skipif(not (GUESTS / "disk.img").exists(), reason="needs tools/dev guests")
def test_a_guest_outlives_its_server(tmp_path):
    shutil.copy(GUESTS / "disk.img", tmp_path / "disk.raw")
    uri = f"nbd+unix:///plc?socket={tmp_path}/s"
    with qemu_serving(tmp_path / "s", tmp_path / "disk.raw"):
        machine = Machine(tmp_path, uri)
        try:
            wait_until_listening(machine.control)
        except BaseException:
            machine.process.kill()
            raise
    try:
        machine.wait_for(lambda: machine.ask("status").startswith("paused: "))
        assert "I/O error" in machine.ask("status")
        with qemu_serving(tmp_path / "s", tmp_path / "disk.raw"):
            deadline = time.monotonic() + 300
            while machine.process.poll() is None:
                assert time.monotonic() < deadline, machine.said()[-3000:]
                try:
                    if machine.ask("status").startswith("paused: "):
                        machine.ask("resume")
                except OSError:  # it has ended
                    pass
                time.sleep(0.2)
            assert machine.process.returncode == 0, machine.said()[-3000:]
            assert "disk: read back what was written" in machine.said() and "connected again" in machine.said()
    finally:
        machine.process.kill()
        machine.process.wait()
    run("e2fsck", "-fn", tmp_path / "disk.raw")


@pytest.mark.skipif(not (GUESTS / "disk.img").exists(), reason="needs tools/dev guests")
def test_a_running_disk_moves_to_a_server(tmp_path):
    shutil.copy(GUESTS / "disk.img", tmp_path / "here.raw")
    random_raw(tmp_path / "there.raw", 6)
    os.truncate(tmp_path / "there.raw", (tmp_path / "here.raw").stat().st_size)
    uri = f"nbd+unix:///plc?socket={tmp_path}/s"
    with qemu_serving(tmp_path / "s", tmp_path / "there.raw"):
        machine = Machine(tmp_path, tmp_path / "here.raw")
        try:
            wait_until_listening(machine.control)
            assert machine.ask("pause") == "done"
            mirror = (BULKHEAD, "disk", "mirror", "--control", machine.control, "-q", 0, uri)
            assert "the format is raw" in run(*mirror, status=1)
            assert f"the disk is now '{uri}', format=raw" in run(*mirror, "-f", "raw")
            assert f"0 {uri} (raw)" in run(BULKHEAD, "disk", "jobs", "--control", machine.control)
            assert machine.ask("resume") == "done"
            assert machine.process.wait(300) == 0, machine.said()[-3000:]
        finally:
            machine.process.kill()
            machine.process.wait()
        assert "disk: read back what was written" in machine.said()
    run("e2fsck", "-fn", tmp_path / "there.raw")
    run("cmp", "-s", tmp_path / "here.raw", tmp_path / "there.raw", status=1)
