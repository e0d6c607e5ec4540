"""Offloads with Debian's own driver: streams that travel whole between guests and to the host are the same byte by byte, and whoever does not
know offloads gets packets whose checksums tshark finds right."""
import pathlib
import shutil
import socket
import tempfile

import pytest

import streams
from bulkhead import wait_until_listening
from streams import guests


@pytest.fixture(scope="module")
def built():
    with tempfile.TemporaryDirectory(prefix="traffic-") as made:
        yield guests.build(pathlib.Path(made))


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="offload-") as made:
        yield pathlib.Path(made)


def test_streams_between_guests_travel_whole_and_a_capture_has_packets(built, folder):
    capture = folder / "plant.pcapng"
    switch = guests.Switch(folder, capture)
    try:
        output, counters = streams.between_guests(built[1], switch, mib=8)
    finally:
        switch.stop()
    for feature in ("tx-checksumming", "rx-checksumming", "tcp-segmentation-offload"):
        assert f"{feature}: on" in output
    # Whole: 8 MiB each way in packets would be 5800 of them.
    assert counters["frames from guest"] + counters["frames to guest"] < 8000, counters
    if shutil.which("tshark") is None:
        pytest.skip("no tshark")
    assert max(streams.expect_whole_packets(capture)) == 1448


@pytest.mark.parametrize("one_more,two_more", [(",offloads=off", ""), ("", ",offloads=off"), (",offloads=off", ",offloads=off")])
def test_a_guest_without_offloads_gets_and_gives_packets(built, folder, one_more, two_more):
    switch = guests.Switch(folder)
    try:
        output, _ = streams.between_guests(built[1], switch, one_more, two_more)
    finally:
        switch.stop()
    assert f"tcp-segmentation-offload: {'off' if two_more else 'on'}" in output


def test_two_pairs_of_queues_carry_streams(built, folder):
    switch = guests.Switch(folder)
    try:
        output, _ = streams.between_guests(built[1], switch, ",queues=2", ",queues=2", mib=8, cpus=2)
    finally:
        switch.stop()
    assert "queue pairs: 2 of 2" in output


@pytest.mark.parametrize("more", ["", ",offloads=off"])
def test_streams_to_and_from_the_host_through_nat_are_the_same(built, more):
    streams.through_nat(built, more, mib=8)


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
