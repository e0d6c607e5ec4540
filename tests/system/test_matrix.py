"""The packet matrix by servers and clients on the kernels of Debian guests: what comes and what is answered between each pair of cards, for
each service and its neighbours, against the oracle of test_switch's frame generator."""
import itertools
import pathlib
import re
import subprocess
import tempfile
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, SLOW
from frames import is_ipv6
from oracle import Oracle
from switch_process import Switch
from test_switch import of_version

MATRIX = ROOT / "tests/system/plants/matrix.yaml"
CLIENT_PORT = 40000
# One of each zone, and what differs by address and group, for the short form.
FEW = ("desk1", "desk2", "desk3", "proxy", "historian", "plc1", "sensor", "bench")


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="matrix-") as made:
        yield pathlib.Path(made)


class Guest:
    """A guest with some of the plant's cards, each in a network name space of its own."""

    def __init__(self, folder, switch, oracle, name, own, cards):
        lines = [f"card {card} {oracle.cards[card]['mac']} {oracle.cards[card]['address']}" for card in cards]
        lines += [f"own {card}" for card in own] + [f"ask {protocol} {port}" for protocol, port in oracle.asked()] + ["end", ""]
        plan = folder / f"{name}.plan"
        plan.write_bytes("\n".join(lines).encode().ljust(65536, b"\0"))
        self.log = folder / f"{name}.log"
        nics = [word for card in own for word in ("--nic", f"switch={switch},port={card},mac={oracle.cards[card]['mac']}")]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(BULKHEAD), "run", "--engine", "soft", "--name", name, "--memory", "256M" if len(own) > 1 else "128M",
                 "--kernel", str(GUESTS / "cloud/vmlinuz"), "--initrd", str(GUESTS / "cloud/initrd"), "--disk", f"file={plan},format=raw", *nics,
                 "--cmdline", "console=ttyS0 quiet panic=-1 task=clients"], stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT)

    def said(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, text, limit=600):
        deadline = time.monotonic() + limit
        while text not in self.said():
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()[-3000:]
            time.sleep(0.1)

    def tell(self, word):
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()


def expected(oracle, cards):
    """The lines that the guests are to say."""
    lines = set()
    for one, other in itertools.permutations(cards, 2):
        if oracle.neighbours(one, other):
            lines.add(f"NEIGHBOUR {one} {other}")
        for protocol, port in oracle.asked():
            direction = oracle.begins(one, other, protocol, port)
            back = direction == "answered"
            if protocol == "ethernet":
                # There is no state: a frame type that a conduit names in either direction passes in both.
                direction, back = direction or oracle.begins(other, one, protocol, port), False
            if (protocol, port) == ("udp", 547 if is_ipv6(oracle.cards[one]["address"]) else 67):
                back = back and oracle.may_serve_addresses(other)
            if direction and protocol != "ping":
                lines.add(f"CAME {one} {other} {protocol} {port}")
            if back:
                lines.add(f"ANSWERED {one} {other} {protocol} {port}")
    return lines


@pytest.mark.parametrize("version", [4, 6] if SLOW else [4])
def test_clients_in_guests_reach_what_the_oracle_says_and_nothing_else(folder, version):
    plant = folder / "plant.yaml"
    plant.write_text(of_version(MATRIX.read_text(), version))
    oracle = Oracle(plant.read_text())
    cards = [card for card in oracle.cards if SLOW or card.removesuffix(".0") in FEW]
    switch = Switch(plant, folder / "s")
    guests = []
    try:
        # All cards at one kernel, or in the long form a guest for each card.
        for number, own in enumerate([[card] for card in cards] if SLOW else [cards]):
            guests.append(Guest(folder, switch.folder, oracle, f"g{number}", own, cards))
        for wait, say in (("CLIENTS: ready", "ask"), ("CLIENTS: asked", "end")):
            for guest in guests:
                guest.wait_for(wait)
            for guest in guests:
                guest.tell(say)
        for guest in guests:
            guest.process.wait(timeout=600)
        ports = switch.ask("ports")
    finally:
        for guest in guests:
            guest.kill()
        status = switch.stop()
    said = "\n".join(guest.said() for guest in guests)
    assert said.count("CLIENTS DONE") == len(guests), said[-3000:]
    seen = set(re.findall(r"^((?:NEIGHBOUR|CAME|ANSWERED) .*?)\r?$", said, re.MULTILINE))
    wanted = expected(oracle, cards)
    asked = sum(map(int, re.findall(r"CLIENTS: asked (\d+)", said)))
    print(f"{asked} questions of clients by IPv{version} in {len(guests)} guests with {len(cards)} cards: {sum(line.startswith('CAME') for line in seen)} came, "
          f"{sum(line.startswith('ANSWERED') for line in seen)} were answered; {len(seen ^ wanted)} differences")
    assert seen == wanted, ("too much", sorted(seen - wanted)[:20], "missing", sorted(wanted - seen)[:20], ports)
    assert asked == len(cards) * (len(cards) - 1) * len(oracle.asked()) and status == 0
