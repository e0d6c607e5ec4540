"""Mirrors, VLANs, counters and faults of a switch process, as its user sees them: an IDS at a card, files that tshark reads, a tap device, and
the command line. Cards are front ends in Python (frames.Card)."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from bulkhead import BULKHEAD
from frames import ACK, SYN, Card, ethernet, mac_bytes, tcp
from switch_process import PATIENCE, Switch
from test_tunnel import namespace


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="mirror-") as made:
        yield pathlib.Path(made)


@contextlib.contextmanager
def running(folder, text, cards):
    """A switch and its cards by their sockets' names: {name: (mac, address)}."""
    plant = folder / "plant.yaml"
    plant.write_text(text)
    (folder / "p").mkdir()
    switch = Switch(plant, folder / "p/wire")
    made = {name: Card(folder / f"p/wire/{name}.sock", *who) for name, who in cards.items()}
    try:
        yield switch, made
    finally:
        for card in made.values():
            card.close()
        switch.process.kill()
        switch.process.wait()


def shown(path, *fields):
    """A line of fields for each frame of a file."""
    words = [word for field in fields for word in ("-e", field)]
    return subprocess.run(["tshark", "-r", path, "-T", "fields", "-E", "occurrence=a", *words], capture_output=True, text=True,
                          check=True, timeout=PATIENCE).stdout.splitlines()


def bulkhead(*words):
    return subprocess.run([str(BULKHEAD), *map(str, words)], capture_output=True, text=True, timeout=PATIENCE)


WATCHED = """
kind: Plant
metadata: {name: watched}
spec:
  switches: {wire: {}}
  zones: {office: {}, control: {}, watch: {}}
  conduits: {web: {from: office, to: control, services: http}}
  machines:
    desk: {kernel: k, nics: [{zone: office, address: 10.0.0.1, mac: "02:00:00:00:00:01"}]}
    plc: {kernel: k, nics: [{zone: control, address: 10.0.0.2, mac: "02:00:00:00:00:02"}]}
    ids: {kernel: k, nics: [{zone: watch, mac: "02:00:00:00:00:03"}]}
  mirrors:
    look: {from: [desk, control], to: ids}
    record: {from: [office, control], pcapng: record.pcapng}
"""
CARDS = {"desk.0": ("02:00:00:00:00:01", "10.0.0.1"), "plc.0": ("02:00:00:00:00:02", "10.0.0.2"), "ids.0": ("02:00:00:00:00:03", "10.0.0.3")}


def test_an_ids_sees_what_passes_and_what_is_refused_and_reaches_nobody(folder):
    with running(folder, WATCHED, CARDS) as (switch, cards):
        desk, plc, ids = cards.values()
        ssh, http = tcp(desk, plc, 4000, 22, SYN, 1), tcp(desk, plc, 4001, 80, SYN, 1)
        answer = tcp(plc, desk, 80, 4001, SYN | ACK, 9, 2)
        desk.send(ssh, http)
        plc.wait_for(lambda frame: frame == http)
        plc.send(answer)
        desk.wait_for(lambda frame: frame == answer)
        switch.ask("ports")
        assert ids.received() == [ssh, http, answer]
        # A card that comes to a zone's socket later is one of the zone.
        late = Card(folder / "p/wire/group-control.sock", "02:00:00:00:00:09", "10.0.0.9")
        late.send(word := ethernet(late.mac, plc.mac, 0x88B5, b"late"))
        ids.wait_for(lambda frame: frame == word)
        late.close()
        # What only looks says nothing, whatever it claims to be.
        for source in (ids.mac, plc.mac):
            ids.send(ethernet(source, desk.mac, 0x88B5, b"a way in"), ethernet(source, b"\xff" * 6, 0x88B5, b"to all"))
        switch.ask("ports")
        assert not desk.received()
        assert "ids" not in switch.ask("refusals") and switch.port("ids.0")[5] == "0"
        assert "mirror port 4" in switch.port("ids.0")[7]


def test_a_capture_names_ports_and_outlives_the_switch(folder):
    if shutil.which("tshark") is None:
        pytest.skip("no tshark")
    with running(folder, WATCHED, CARDS) as (switch, cards):
        desk, plc, ids = cards.values()
        for number in (1, 2):
            desk.send(asked := tcp(desk, plc, 4000 + number, 80, SYN, 1))
            plc.wait_for(lambda frame, asked=asked: frame == asked)
            plc.send(said := tcp(plc, desk, 80, 4000 + number, SYN | ACK, 9, 2))
            desk.wait_for(lambda frame, said=said: frame == said)
            switch.stop(signal.SIGKILL)
            for card in cards.values():
                card.close()
            switch.start()
            for card in cards.values():
                card.connect()
    lines = [line.split("\t") for line in shown(folder / "record.pcapng", "frame.interface_name", "frame.packet_flags_direction", "tcp.srcport")]
    assert [(name, int(direction, 0), int(port)) for name, direction, port in lines] == [
        ("desk.0", 1, 4001), ("plc.0", 1, 80), ("desk.0", 1, 4002), ("plc.0", 1, 80)], lines


def test_counters_and_faults_are_asked_and_set_by_the_command_line(folder):
    with running(folder, WATCHED, CARDS) as (switch, cards):
        desk, plc = cards["desk.0"], cards["plc.0"]
        there = ["--directory", folder / "p"]
        asked = tcp(desk, plc, 4000, 80, SYN, 1)
        desk.send(asked, asked, tcp(desk, plc, 4000, 22, SYN, 1))
        plc.wait_for(lambda frame: frame == asked)
        said = bulkhead("network", "counters", folder / "plant.yaml", "-o", "json", *there)
        assert said.returncode == 0, said.stderr
        facts = {(each["kind"], each["name"]): each for each in json.loads(said.stdout)}
        port, group = facts["port", "desk.0"], facts["group", "control"]
        assert (port["received-frames"], port["received-bytes"], port["dropped.filter"], port["link"]) == (3, 180, 1, "up")
        assert (group["sent-frames"], group["sent-bytes"]) == (2, 120)
        text = bulkhead("network", "counters", folder / "plant.yaml", *there).stdout
        assert any(line.split()[:2] == ["port", "desk.0"] and "filter 1" in line for line in text.splitlines()), text
        done = bulkhead("network", "fault", "set", "plc.0", folder / "plant.yaml", *there, "--out", "--delay", "200ms", "--duplicated", "100%")
        assert done.returncode == 0, done.stderr
        plc.received()
        began = time.monotonic()
        desk.send(asked)
        got = plc.wait_for(lambda frame: frame == asked)
        assert time.monotonic() - began >= 0.2
        while got.count(asked) < 2:
            got += plc.wait_for(lambda frame: frame == asked)
        listed = bulkhead("network", "fault", "show", folder / "plant.yaml", *there).stdout
        line = next(line for line in listed.splitlines() if line.startswith("plc.0"))
        assert "out" in line and "delay 200ms, duplicated 100%" in line and "passed 2" in line and "duplicated 1" in line, listed
        assert "desk.0" not in listed
        assert bulkhead("network", "fault", "clear", "plc.0", folder / "plant.yaml", *there).returncode == 0
        facts = json.loads(bulkhead("network", "fault", "show", folder / "plant.yaml", "-o", "json", *there).stdout)
        assert all(each["delay"] == each["duplicated"] == each["cut"] == 0 for each in facts)
        for words, complaint in ((("set", "nobody", "--cut"), "no port 'nobody'"), (("set", "plc.0"), "no fault is named"),
                                 (("set", "plc.0", "--lost", "1"), "--lost '1': allowed: 0% to 100%"),
                                 (("set", "plc.0", "--delay", "2m"), "at most 60 s")):
            wrong = bulkhead("network", "fault", words[0], words[1], folder / "plant.yaml", *there, *words[2:])
            assert wrong.returncode in (1, 2) and complaint in wrong.stderr, wrong
    gone = bulkhead("network", "counters", folder / "plant.yaml", *there)
    assert gone.returncode == 1 and "switch 'wire' does not run" in gone.stderr


# ---- VLANs ----

VLANS = """
kind: Plant
metadata: {name: vlans}
spec:
  switches: {wire: {}}
  zones: {floor: {}}
  groups:
    five: {zone: floor, vlan: 5}
    ten: {zone: floor, vlan: 10}
    thirty: {zone: floor, vlan: 30}
    customer: {zone: floor, mode: tunnel, vlan: 20}
    wide: {zone: floor, mode: trunk, native-vlan: 5, vlans: [10, 20]}
    provider: {zone: floor, mode: trunk, vlans: [20], tag-protocol: 0x88a8}
    uplink: {zone: floor, mode: trunk, native-vlan: 5, vlans: [10, 20], forged-mac: allow}
  machines:
    a5: {kernel: k, nics: [{group: five, mac: "02:00:00:00:00:05"}]}
    a10: {kernel: k, nics: [{group: ten, mac: "02:00:00:00:00:10"}]}
    a30: {kernel: k, nics: [{group: thirty, mac: "02:00:00:00:00:30"}]}
    inner: {kernel: k, nics: [{group: customer, mac: "02:00:00:00:00:20"}]}
    trunk: {kernel: k, nics: [{group: wide, mac: "02:00:00:00:00:01"}]}
    bridge: {kernel: k, nics: [{group: provider, mac: "02:00:00:00:00:02"}]}
  links:
    outside: {group: uplink, tap: bhtap}
  mirrors:
    seen: {from: [trunk, bridge, outside], pcapng: seen.pcapng}
"""
VLAN_CARDS = {f"{name}.0": (f"02:00:00:00:00:{number}", None)
              for name, number in (("a5", "05"), ("a10", "10"), ("a30", "30"), ("inner", "20"), ("trunk", "01"), ("bridge", "02"))}
ALL = b"\xff" * 6


def tagged(card, *tags, word=b"word"):
    """A broadcast of a card with (type, VLAN) tags, outermost first."""
    head = b"".join(struct.pack(">HH", kind, vlan) for kind, vlan in tags)
    return (ALL + mac_bytes(card.mac) + head + struct.pack(">H", 0x88B5) + word).ljust(60, b"\0")


def words_of(frames):
    """The tags of frames, by what they say."""
    seen = {}
    for frame in frames:
        at, tags = 12, []
        while (kind := struct.unpack_from(">H", frame, at)[0]) in (0x8100, 0x88A8):
            tags.append((kind, struct.unpack_from(">H", frame, at + 2)[0] & 0xFFF))
            at += 4
        if kind == 0x88B5:
            seen[frame[at + 2:].rstrip(b"\0").decode()] = tags
    return seen


def test_trunks_native_vlans_and_tags_in_tags_are_as_tshark_reads_them(folder):
    for needed in ("tshark", "nsenter", "unshare", "ip"):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no /dev/net/tun")
    with namespace() as inside, running(folder, VLANS, VLAN_CARDS) as (switch, cards), contextlib.ExitStack() as ends:
        for words in ("tuntap add bhtap mode tap", "link set bhtap up"):
            subprocess.run([*inside, "ip", *words.split()], check=True, timeout=PATIENCE)
        tap_log = (folder / "tap.log").open("wb+")
        tap = subprocess.Popen([*inside, "tshark", "-i", "bhtap", "-l", "-T", "fields", "-e", "eth.src", "-e", "vlan.etype", "-e", "vlan.id",
                                "-e", "eth.type", "-e", "ieee8021ad.id", "-f", "ether broadcast"], stdout=subprocess.PIPE, stderr=tap_log, text=True)
        ends.callback(tap.wait)
        ends.callback(tap.kill)
        deadline = time.monotonic() + PATIENCE
        while b"Capturing" not in (folder / "tap.log").read_bytes():
            assert time.monotonic() < deadline and tap.poll() is None, (folder / "tap.log").read_text()
            time.sleep(0.05)
        link_log = (folder / "link.log").open("wb")
        link = subprocess.Popen([*inside, str(BULKHEAD), "link", str(folder / "plant.yaml"), "--link", "outside", "--directory",
                                 str(folder / "p/wire")], stdout=link_log, stderr=link_log)
        ends.callback(link.wait)
        ends.callback(link.kill)
        while b"frames pass" not in (folder / "link.log").read_bytes():
            assert time.monotonic() < deadline and link.poll() is None, (folder / "link.log").read_text()
            time.sleep(0.05)
        a5, a10, a30, inner, trunk, bridge = cards.values()
        a5.send(tagged(a5, word=b"from 5"))
        a10.send(tagged(a10, word=b"from 10"))
        a30.send(tagged(a30, word=b"from 30"))
        # A customer's own tags are carried along.
        inner.send(tagged(inner, (0x8100, 7), word=b"inner 7"))
        trunk.send(tagged(trunk, word=b"native"), tagged(trunk, (0x8100, 10), word=b"tagged 10"), tagged(trunk, (0x8100, 30), word=b"not allowed"),
                   tagged(trunk, (0x8100, 20), (0x8100, 8), word=b"two tags"))
        bridge.send(tagged(bridge, (0x88A8, 20), (0x8100, 9), word=b"provider"), tagged(bridge, word=b"no native"))
        switch.ask("ports")
        q, ad = 0x8100, 0x88A8
        got = {name: words_of(card.received()) for name, card in cards.items()}
        assert got["a5.0"] == {"native": []}
        assert got["a10.0"] == {"tagged 10": []}
        assert got["a30.0"] == {}
        assert got["inner.0"] == {"two tags": [(q, 8)], "provider": [(q, 9)]}
        assert got["trunk.0"] == {"from 5": [], "from 10": [(q, 10)], "inner 7": [(q, 20), (q, 7)], "provider": [(q, 20), (q, 9)]}
        assert got["bridge.0"] == {"inner 7": [(ad, 20), (q, 7)], "two tags": [(ad, 20), (q, 8)]}
        # By the tap device what a trunk carries, read by another program: who, and the VLANs from the outside in.
        expected = {("02:00:00:00:00:05", ""), ("02:00:00:00:00:10", "10"), ("02:00:00:00:00:20", "20,7"), ("02:00:00:00:00:01", ""),
                    ("02:00:00:00:00:01", "10"), ("02:00:00:00:00:01", "20,8"), ("02:00:00:00:00:02", "20,9")}
        read = set()
        timer = threading.Timer(PATIENCE, tap.kill)
        timer.start()
        while read != expected and (line := tap.stdout.readline()):
            source, _, vlan, *_ = line.rstrip("\n").split("\t")
            read.add((source, vlan))
        timer.cancel()
        assert read == expected, read ^ expected
        assert "VLAN 1" in switch.port("trunk.0")[7] and "VLAN 1" in switch.port("bridge.0")[7]
    # From the mirror: each frame once, as the first watched port had it.
    lines = shown(folder / "seen.pcapng", "frame.interface_name", "eth.src", "ieee8021ad.id", "vlan.id")
    frames = {tuple(line.split("\t")) for line in lines if "02:00:00:00:00:" in line}
    assert ("bridge.0", "02:00:00:00:00:02", "20", "9") in frames, frames
    assert ("trunk.0", "02:00:00:00:00:01", "", "20,8") in frames, frames
    assert any(source == "02:00:00:00:00:20" and vlans in ("20,7", "7") for _, source, _, vlans in frames), frames
    assert len([line for line in lines if "02:00:00:00:00:20" in line]) == 1, lines
