"""Streams that guests exchange with each other and with this host, whose every byte the guests compare: bench/network."""
import re
import subprocess
import sys

from bulkhead import BULKHEAD, ROOT

sys.path.insert(0, str(ROOT / "bench/network"))
import guests  # noqa: E402

guests.BULKHEAD = BULKHEAD
MIB = 1 << 20


def between_guests(initrd, switch, one_more="", two_more="", mib=4, **words):
    """What the second guest said after it had sent to the first and received from it, and its card's counters."""
    one = guests.bulkhead(initrd, switch.nic("one", one_more), address="10.9.0.1/24", serve=5000, **words)
    try:
        one.wait_for("serving: 5000")
        two = guests.bulkhead(initrd, switch.nic("two", two_more), extra=("--stats",), address="10.9.0.2/24", peer="10.9.0.1", port=5000,
                              bytes=mib * MIB, rounds=1, **words)
        try:
            two.wait_for("TRAFFIC DONE")
            two.wait()
        finally:
            two.kill()
    finally:
        one.kill()
    said = two.said()
    print(said)
    expect_right(two)
    assert "errors: 0 0" in two.output
    counters = {name: int(value.replace(" ", "")) for name, value in re.findall(r"^  (frames [a-z ]+?) +([0-9 ]+)$", said, re.MULTILINE)}
    assert counters["frames refused"] == counters["frames too large"] == 0
    return two.output, counters


def through_nat(built, more="", mib=4, **words):
    """A guest sends to a server on this host and receives from it."""
    program, initrd = built
    served = subprocess.Popen([program, "serve", "0"], stdout=subprocess.PIPE, text=True)
    try:
        port = int(served.stdout.readline().split()[1])
        guest = guests.bulkhead(initrd, "nat,host=on" + more, address="10.0.2.15/24", gateway="10.0.2.2", peer="10.0.2.2", port=port,
                                bytes=mib * MIB, rounds=1, **words)
        try:
            guest.wait_for("TRAFFIC DONE")
        finally:
            guest.kill()
    finally:
        served.kill()
        served.wait()
    expect_right(guest)


def expect_right(guest):
    moved = guests.figures(guest.output)
    assert len(moved["sent"]) == len(moved["received"]) == 1, guest.said()
    assert "checksum errors: 0" in guest.output


def expect_whole_packets(capture):
    """What a port without offloads gets: packets of at most 1514 bytes with right checksums. Returns how many bytes of TCP each carries."""
    lines = subprocess.run(["tshark", "-r", capture, "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-Y", "tcp", "-T", "fields",
                            "-e", "frame.len", "-e", "ip.checksum.status", "-e", "tcp.checksum.status", "-e", "tcp.len"],
                           capture_output=True, text=True, check=True).stdout.splitlines()
    frames = [tuple(map(int, line.split("\t"))) for line in lines]
    assert len(frames) > 1000
    assert max(frame[0] for frame in frames) <= 1514
    assert all(frame[1:3] == (1, 1) for frame in frames), [frame for frame in frames if frame[1:3] != (1, 1)][:3]
    return [frame[3] for frame in frames]
