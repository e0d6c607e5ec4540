"""Network cards for systems without virtio drivers, with Debian's own drivers of them: streams to virtio cards, to each other and to the host
are the same byte by byte, whoever gets packets gets right ones, and a pulled cable is seen."""
import pathlib
import shutil
import socket
import tempfile

import pytest

import streams
from bulkhead import GUESTS, wait_until_listening
from streams import guests

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


@pytest.mark.parametrize("model", MODELS)
def test_streams_to_and_from_a_virtio_card_are_right_in_every_packet(built, folder, model):
    capture = folder / "plant.pcapng"
    switch = guests.Switch(folder, capture)
    try:
        output, counters = streams.between_guests(built[1], switch, ",model=virtio", f",model={model}", kernel=KERNEL, trust=1)
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
    streams.expect_whole_packets(capture)


@pytest.mark.parametrize("model", MODELS)
def test_streams_between_two_of_them_are_the_same(built, folder, model):
    switch = guests.Switch(folder)
    try:
        streams.between_guests(built[1], switch, f",model={model}", f",model={model}", kernel=KERNEL, trust=1)
    finally:
        switch.stop()


@pytest.mark.parametrize("model", MODELS)
def test_long_frames_are_the_same(built, folder, model):
    switch = guests.Switch(folder)
    try:
        streams.between_guests(built[1], switch, ",model=virtio,mtu=9000", f",model={model},mtu=9000", kernel=KERNEL, trust=1, mtu=9000)
    finally:
        switch.stop()


@pytest.mark.parametrize("model", MODELS)
def test_streams_to_and_from_the_host_through_nat_are_the_same(built, model):
    streams.through_nat(built, f",model={model}", kernel=KERNEL)


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
