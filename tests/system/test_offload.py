"""Offloads with Debian's own driver: streams that travel whole between guests and to the host are the same byte by byte, and whoever does not
know offloads gets packets whose checksums tshark finds right."""
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest

from bulkhead import BULKHEAD, ROOT, wait_until_listening

sys.path.insert(0, str(ROOT / "bench/network"))
import guests  # noqa: E402

guests.BULKHEAD = BULKHEAD
MIB = 1 << 20


@pytest.fixture(scope="module")
def built():
    with tempfile.TemporaryDirectory(prefix="traffic-") as made:
        yield guests.build(pathlib.Path(made))


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="offload-") as made:
        yield pathlib.Path(made)


def exchange(built, switch, one_more="", two_more="", cpus=1, mib=8):
    """What the second guest said after it had sent to the first and received from it."""
    one = guests.bulkhead(built[1], switch.nic("one", one_more), cpus=cpus, address="10.9.0.1/24", serve=5000)
    try:
        one.wait_for("serving: 5000")
        two = guests.bulkhead(built[1], switch.nic("two", two_more), cpus=cpus, extra=("--stats",), address="10.9.0.2/24", peer="10.9.0.1",
                              port=5000, bytes=mib * MIB, rounds=1)
        try:
            two.wait_for("TRAFFIC DONE")
            two.wait()
        finally:
            two.kill()
    finally:
        one.kill()
    said = two.said()
    print(said)
    moved = guests.figures(two.output)
    assert len(moved["sent"]) == len(moved["received"]) == 1
    assert "checksum errors: 0" in two.output and "errors: 0 0" in two.output
    return two.output, said


def test_streams_between_guests_travel_whole_and_a_capture_has_packets(built, folder):
    capture = folder / "plant.pcapng"
    switch = guests.Switch(folder, capture)
    try:
        output, said = exchange(built, switch)
    finally:
        switch.stop()
    for feature in ("tx-checksumming", "rx-checksumming", "tcp-segmentation-offload"):
        assert f"{feature}: on" in output
    counters = {name: int(value.replace(" ", "")) for name, value in re.findall(r"^  (frames [a-z ]+?) +([0-9 ]+)$", said, re.MULTILINE)}
    assert counters["frames refused"] == counters["frames too large"] == 0
    # Whole: 8 MiB each way in packets would be 5800 of them.
    assert counters["frames from guest"] + counters["frames to guest"] < 8000, counters
    if shutil.which("tshark") is None:
        pytest.skip("no tshark")
    lines = subprocess.run(["tshark", "-r", capture, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp", "-T", "fields",
                            "-e", "frame.len", "-e", "ip.checksum.status", "-e", "tcp.checksum.status", "-e", "tcp.len"],
                           capture_output=True, text=True, check=True).stdout.splitlines()
    frames = [tuple(map(int, line.split("\t"))) for line in lines]
    assert len(frames) > 1000
    assert max(frame[0] for frame in frames) <= 1514
    assert all(frame[1] == 1 and frame[2] == 1 for frame in frames), [frame for frame in frames if frame[1:3] != (1, 1)][:3]
    assert max(frame[3] for frame in frames) == 1448


@pytest.mark.parametrize("one_more,two_more", [(",offloads=off", ""), ("", ",offloads=off"), (",offloads=off", ",offloads=off")])
def test_a_guest_without_offloads_gets_and_gives_packets(built, folder, one_more, two_more):
    switch = guests.Switch(folder)
    try:
        output, _ = exchange(built, switch, one_more, two_more, mib=4)
    finally:
        switch.stop()
    assert f"tcp-segmentation-offload: {'off' if two_more else 'on'}" in output


def test_two_pairs_of_queues_carry_streams(built, folder):
    switch = guests.Switch(folder)
    try:
        output, _ = exchange(built, switch, ",queues=2", ",queues=2", cpus=2)
    finally:
        switch.stop()
    assert "queue pairs: 2 of 2" in output


@pytest.mark.parametrize("more", ["", ",offloads=off"])
def test_streams_to_and_from_the_host_through_nat_are_the_same(built, more):
    served = subprocess.Popen([built[0], "serve", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(served.stdout.readline().split()[1])
        guest = guests.bulkhead(built[1], "nat,host=on" + more, address="10.0.2.15/24", gateway="10.0.2.2", peer="10.0.2.2", port=port,
                                bytes=8 * MIB, rounds=1)
        try:
            guest.wait_for("TRAFFIC DONE")
        finally:
            guest.kill()
    finally:
        served.kill()
        served.wait()
    moved = guests.figures(guest.output)
    assert len(moved["sent"]) == len(moved["received"]) == 1, guest.said()
    assert "checksum errors: 0" in guest.output


def test_a_cable_is_pulled_and_put_back_while_the_guest_runs(built, folder):
    control = folder / "control.sock"
    guest = guests.bulkhead(built[1], "isolated", extra=("--control", control), address="10.9.0.1/24", watch=3)
    try:
        guest.wait_for("carrier: 1")
        wait_until_listening(control)
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(60)
            asked.connect(str(control))
            for question, answer, said in (("link 0 down", "done\n", "carrier: 0"), ("link 0 up", "done\n", "carrier: 1\r\ncarrier: 0\r\ncarrier: 1"),
                                           ("link 1 up", "error: no network card 1\n", ""), ("link 0 sideways", "error: link '0 sideways'", "")):
                asked.sendall(question.encode() + b"\n")
                assert asked.recv(4096).decode().startswith(answer)
                guest.wait_for(said)
        guest.wait_for("TRAFFIC DONE")
    finally:
        guest.kill()
