"""Network cards for systems without virtio drivers, with Debian's own drivers of them: streams to virtio cards, to each other and to the host
are the same byte by byte, whoever gets packets gets right ones, and a pulled cable is seen."""
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile

import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, wait_until_listening

sys.path.insert(0, str(ROOT / "bench/network"))
import guests  # noqa: E402

guests.BULKHEAD = BULKHEAD
MIB = 1 << 20
KERNEL = GUESTS / "amd64/vmlinuz"
MODELS = ["e1000", "e1000e"]


@pytest.fixture(scope="module")
def built():
    with tempfile.TemporaryDirectory(prefix="traffic-") as made:
        yield guests.build(pathlib.Path(made), GUESTS / "amd64/nics-initrd")


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="nics-") as made:
        yield pathlib.Path(made)


def exchange(built, switch, one_model, two_model, mib=4, more="", **words):
    """What the second guest said after it had sent to the first and received from it, and what the first one said."""
    one = guests.bulkhead(built[1], switch.nic("one", f",model={one_model}{more}"), kernel=KERNEL, address="10.9.0.1/24", serve=5000, trust=1, **words)
    try:
        one.wait_for("serving: 5000")
        two = guests.bulkhead(built[1], switch.nic("two", f",model={two_model}{more}"), kernel=KERNEL, extra=("--stats",), address="10.9.0.2/24",
                              peer="10.9.0.1", port=5000, bytes=mib * MIB, rounds=1, trust=1, **words)
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
    counters = {name: int(value.replace(" ", "")) for name, value in re.findall(r"^  (frames [a-z ]+?) +([0-9 ]+)$", said, re.MULTILINE)}
    assert counters["frames refused"] == counters["frames too large"] == 0
    return two.output, counters


@pytest.mark.parametrize("model", MODELS)
def test_streams_to_and_from_a_virtio_card_are_right_in_every_packet(built, folder, model):
    capture = folder / "plant.pcapng"
    switch = guests.Switch(folder, capture)
    try:
        output, counters = exchange(built, switch, "virtio", model)
    finally:
        switch.stop()
    for feature in ("tx-checksumming", "rx-checksumming", "tcp-segmentation-offload"):
        assert f"{feature}: on" in output
    # By the pin one; by messages one for each queue and one for the rest.
    assert f"interrupts: {3 if model == 'e1000e' else 1}" in output
    # What the card sends travels whole: 4 MiB in packets would be 2900 of them.
    assert counters["frames from guest"] < 2500, counters
    if shutil.which("tshark") is None:
        pytest.skip("no tshark")
    lines = subprocess.run(["tshark", "-r", capture, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp", "-T", "fields",
                            "-e", "frame.len", "-e", "ip.checksum.status", "-e", "tcp.checksum.status"],
                           capture_output=True, text=True, check=True).stdout.splitlines()
    frames = [tuple(map(int, line.split("\t"))) for line in lines]
    assert len(frames) > 1000
    assert max(frame[0] for frame in frames) <= 1514
    assert all(frame[1:] == (1, 1) for frame in frames), [frame for frame in frames if frame[1:] != (1, 1)][:3]


@pytest.mark.parametrize("model", MODELS)
def test_streams_between_two_of_them_are_the_same(built, folder, model):
    switch = guests.Switch(folder)
    try:
        exchange(built, switch, model, model)
    finally:
        switch.stop()


@pytest.mark.parametrize("model", MODELS)
def test_long_frames_are_the_same(built, folder, model):
    switch = guests.Switch(folder)
    try:
        exchange(built, switch, "virtio", model, more=",mtu=9000", mtu=9000)
    finally:
        switch.stop()


@pytest.mark.parametrize("model", MODELS)
def test_streams_to_and_from_the_host_through_nat_are_the_same(built, model):
    served = subprocess.Popen([built[0], "serve", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(served.stdout.readline().split()[1])
        guest = guests.bulkhead(built[1], f"nat,host=on,model={model}", kernel=KERNEL, address="10.0.2.15/24", gateway="10.0.2.2", peer="10.0.2.2",
                                port=port, bytes=4 * MIB, rounds=1)
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


@pytest.mark.parametrize("model", MODELS)
def test_a_cable_is_pulled_and_put_back_while_the_guest_runs(built, folder, model):
    control = folder / "control.sock"
    guest = guests.bulkhead(built[1], f"isolated,model={model}", extra=("--control", control), kernel=KERNEL, address="10.9.0.1/24", watch=3)
    try:
        guest.wait_for("carrier: 1")
        wait_until_listening(control)
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(60)
            asked.connect(str(control))
            for question, said in (("link 0 down", "carrier: 0"), ("link 0 up", "carrier: 0\r\ncarrier: 1")):
                asked.sendall(question.encode() + b"\n")
                assert asked.recv(4096) == b"done\n"
                guest.wait_for(said)
        guest.wait_for("TRAFFIC DONE")
    finally:
        guest.kill()
