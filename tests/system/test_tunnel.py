"""Two switches joined by a tunnel over a path that the test holds in its hands: what passes and what a reader of the path sees, replays, loss,
wrong keys and deaths; and the same protocol spoken with wireguard-go. Cards are front ends in Python (frames.Card)."""
import contextlib
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from bulkhead import BULKHEAD
from frames import Card, ethernet, mac_bytes
from switch_process import PATIENCE, Switch

MACS = {"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b"}
DATA = 4


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="tunnel-") as made:
        yield pathlib.Path(made)


def bulkhead(*words):
    return subprocess.run([str(BULKHEAD), *map(str, words)], capture_output=True, text=True, timeout=PATIENCE)


def new_key(path):
    made = bulkhead("network", "keygen", path)
    assert made.returncode == 0, made.stderr
    return re.search(r"public key (\S+)\naddress +(\S+)", made.stdout).groups()


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Host:
    """A switch with a card in its zone, and the process of a link to another host."""

    def __init__(self, folder, name, port, peer_key, peer_port, inside=()):
        self.name, self.folder, self.inside = name, folder / name, inside
        self.folder.mkdir(exist_ok=True)
        self.key = folder / f"{name}.key"
        self.plant = folder / f"{name}.yaml"
        self.plant.write_text(f"""
kind: Plant
metadata: {{name: {name}}}
spec:
  switches: {{net: {{}}}}
  zones: {{floor: {{}}}}
  links:
    far:
      zone: floor
      tunnel:
        key: {self.key}
        listen: 127.0.0.1:{port}
        vni: 4711
        peers: {{other: {{key: {peer_key}, address: '127.0.0.1:{peer_port}'}}}}
""")
        self.log = folder / f"{name}.log"
        self.switch = Switch(self.plant, self.folder / "net")
        self.link = None
        self.start_link()
        self.card = Card(self.folder / "net/group-floor.sock", MACS[name])
        self.introduce()

    def introduce(self):
        # A group's card is a port when it has said something.
        self.card.send(ethernet(MACS[self.name], "ff:ff:ff:ff:ff:ff", 0x88B5, b"hello"))

    def start_link(self):
        with self.log.open("ab") as log:
            self.link = subprocess.Popen([*self.inside, str(BULKHEAD), "link", str(self.plant), "--link", "far", "--directory",
                                          str(self.folder / "net")], stdout=log, stderr=log)

    def tunnel(self):
        """State, and by its title each number, of the other host's line."""
        said = bulkhead("network", "tunnels", self.plant, "--directory", self.folder)
        line = next((line.split() for line in said.stdout.splitlines() if line.startswith("other ")), None)
        if line is None:
            return {"state": "gone"}
        # HEARD is two words when something was heard.
        numbers = [int(word) for word in line if word.isdigit()]
        return dict(zip(("keys", "in", "out", "lost", "replayed", "forged", "refused"), numbers), state=line[1], text=said.stdout)

    def wait_until(self, state):
        deadline = time.monotonic() + PATIENCE
        while self.tunnel()["state"] != state:
            assert time.monotonic() < deadline, self.log.read_text() + str(self.tunnel())
            time.sleep(0.05)

    def kill_link(self):
        self.link.kill()
        self.link.wait()

    def close(self):
        self.card.close()
        self.kill_link()
        self.switch.process.kill()
        self.switch.process.wait()


class Path:
    """Between two hosts. pass_on says what becomes of each datagram: a list of those that go on."""

    def __init__(self, port_a, port_b):
        self.sockets = []
        for _ in range(2):
            one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            one.bind(("127.0.0.1", 0))
            self.sockets.append(one)
        self.near_a, self.near_b = (one.getsockname()[1] for one in self.sockets)
        # What host A says comes in at its own socket, and goes on to B from B's.
        self.ways = {self.sockets[0]: (self.sockets[1], ("127.0.0.1", port_b)), self.sockets[1]: (self.sockets[0], ("127.0.0.1", port_a))}
        self.seen = []
        self.pass_on = lambda datagram: [datagram]
        self.stopping = False
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while not self.stopping:
            for one in select.select(self.sockets, [], [], 0.1)[0]:
                # Nobody may be there, which the next call is told.
                with contextlib.suppress(ConnectionError):
                    datagram = one.recv(65536)
                    self.seen.append((one, datagram))
                    out, to = self.ways[one]
                    for each in self.pass_on(datagram):
                        out.sendto(each, to)

    def repeat_to_b(self, datagrams):
        for each in datagrams:
            self.sockets[1].sendto(each, self.ways[self.sockets[0]][1])

    def data_of_a(self):
        return [datagram for one, datagram in list(self.seen) if one is self.sockets[0] and datagram[0] == DATA and len(datagram) > 32]

    def close(self):
        self.stopping = True
        self.thread.join()
        for one in self.sockets:
            one.close()


class Pair:
    def __init__(self, folder, key_b_known_to_a=None):
        (key_a, _), (key_b, _) = (new_key(folder / f"{name}.key") for name in "ab")
        port_a, port_b = free_port(), free_port()
        self.path = Path(port_a, port_b)
        self.a = Host(folder, "a", port_a, key_b_known_to_a or key_b, self.path.near_a)
        self.b = Host(folder, "b", port_b, key_a, self.path.near_b)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in (self.a, self.b, self.path):
            each.close()

    def meet(self):
        self.a.wait_until("up")
        self.b.wait_until("up")


def words(source, destination, text):
    return ethernet(MACS[source], MACS[destination], 0x88B5, text.encode())


def until_it_comes(one, other, text):
    """Says the same again and again, as whoever speaks to somebody who is coming back does."""
    frame = words(one.name, other.name, text)
    deadline = time.monotonic() + PATIENCE
    while frame not in other.card.received():
        assert time.monotonic() < deadline, f"'{text}' does not come from {one.name}"
        one.card.send(frame)
        time.sleep(0.02)


def write_capture(path, datagrams):
    """Datagrams as IPv4 packets between two hosts, for tshark."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for number, datagram in enumerate(datagrams):
        total = 28 + len(datagram)
        packet = struct.pack(">BBHHHBBH4s4s", 0x45, 0, total, 0, 0, 64, 17, 0, bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)))
        packet += struct.pack(">HHHH", 51820, 51820, 8 + len(datagram), 0) + datagram
        out += struct.pack("<IIII", number, 0, total, total) + packet
    path.write_bytes(out)


def test_frames_pass_and_a_reader_of_the_path_sees_none_of_them(folder):
    with Pair(folder) as pair:
        pair.meet()
        secret = "pressure of tank seven: 42 bar"
        until_it_comes(pair.a, pair.b, secret)
        until_it_comes(pair.b, pair.a, secret)
        state = pair.a.tunnel()
        assert state["in"] >= 1 and state["out"] >= 1 and state["forged"] == 0, state
        datagrams = [datagram for _, datagram in list(pair.path.seen)]
        assert {datagram[0] for datagram in datagrams} == {1, 2, DATA}
        for datagram in datagrams:
            for clear in (secret.encode()[:8], mac_bytes(MACS["a"]), mac_bytes(MACS["b"]), b"\x88\xb5press"):
                assert clear not in datagram
        if shutil.which("tshark"):
            write_capture(folder / "path.pcap", datagrams)
            lines = subprocess.run(["tshark", "-r", str(folder / "path.pcap"), "-T", "fields", "-e", "frame.protocols"], capture_output=True,
                                   text=True, check=True, timeout=PATIENCE).stdout.split()
            assert lines == ["raw:ip:udp:wg"] * len(datagrams), lines


def test_a_replayed_datagram_is_dropped(folder):
    with Pair(folder) as pair:
        pair.meet()
        until_it_comes(pair.a, pair.b, "once")
        pair.b.card.received()
        datagrams = pair.path.data_of_a()
        assert datagrams
        before = pair.b.tunnel()
        pair.path.repeat_to_b(datagrams * 3)
        spoiled = bytearray(datagrams[-1])
        spoiled[-1] ^= 1
        pair.path.repeat_to_b([bytes(spoiled)])
        deadline = time.monotonic() + PATIENCE
        while pair.b.tunnel()["forged"] == before["forged"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # What stands before it in the socket has been judged too.
        assert pair.b.tunnel()["replayed"] - before["replayed"] == 3 * len(datagrams)
        assert words("a", "b", "once") not in pair.b.card.received()
        until_it_comes(pair.a, pair.b, "and on")


def test_a_bad_path_loses_frames_and_doubles_none(folder):
    with Pair(folder) as pair:
        pair.meet()
        dice, kept = random.Random(7), []

        def pass_on(datagram):
            chance = dice.random()
            if chance < 0.2:
                return []
            if chance < 0.4:
                kept.append(datagram)
                return []
            late, kept[:] = kept[:], []
            return [datagram, *late] + [datagram] * (chance > 0.9)

        pair.path.pass_on = pass_on
        came = []
        for number in range(200):
            pair.a.card.send(words("a", "b", f"number {number}"))
            came += pair.b.card.received()
        pair.path.pass_on = lambda datagram: [datagram]
        until_it_comes(pair.a, pair.b, "end")
        # until_it_comes has taken the last ones.
        mine = [frame for frame in came if frame[14:20] == b"number"]
        assert len(mine) == len(set(mine))
        assert pair.b.tunnel()["replayed"] > 0


def test_a_wrong_key_is_refused(folder):
    with tempfile.TemporaryDirectory() as elsewhere:
        stranger, _ = new_key(pathlib.Path(elsewhere) / "stranger.key")
    with Pair(folder, key_b_known_to_a=stranger) as pair:
        deadline = time.monotonic() + PATIENCE
        while not re.search(r"\d+  handshakes of strangers", pair.b.tunnel().get("text", "")):
            assert time.monotonic() < deadline
            pair.a.card.send(words("a", "b", "hello"))
            time.sleep(0.05)
        # Host A asks for another's key; host B's own handshakes are a stranger's to A.
        assert pair.a.tunnel()["state"] == pair.b.tunnel()["state"] == "connecting"
        assert pair.a.tunnel()["keys"] == pair.b.tunnel()["keys"] == 0
        assert pair.b.card.received() == []


def test_a_side_that_is_killed_comes_back(folder):
    with Pair(folder) as pair:
        pair.meet()
        for number, (killed, other) in enumerate([(pair.a, pair.b), (pair.b, pair.a)]):
            killed.kill_link()
            for _ in range(10):
                other.card.send(words(other.name, killed.name, "nobody"))
            killed.start_link()
            until_it_comes(pair.a, pair.b, f"there {number}")
            until_it_comes(pair.b, pair.a, f"back {number}")
        # So does a switch, which its link finds again.
        pair.b.card.close()
        pair.b.switch.stop(signal.SIGKILL)
        pair.b.switch.start()
        pair.b.card = Card(pair.b.folder / "net/group-floor.sock", MACS["b"])
        pair.b.introduce()
        until_it_comes(pair.b, pair.a, "the switch is back")
        until_it_comes(pair.a, pair.b, "and hears")
        pair.b.link.terminate()
        assert pair.b.link.wait(timeout=PATIENCE) == 0
        assert not (folder / "b/net/far.tunnel.sock").exists()


def test_nonsense_on_the_path_ends_nothing(folder):
    with Pair(folder) as pair:
        pair.meet()
        dice = random.Random(11)
        seen = [datagram for _, datagram in list(pair.path.seen)]
        for _ in range(3000):
            datagram = bytearray(dice.choice(seen)) if dice.random() < 0.7 else bytearray(dice.randbytes(dice.randrange(200)))
            for _ in range(dice.randrange(4)):
                if datagram:
                    datagram[dice.randrange(len(datagram))] = dice.randrange(256)
            pair.path.repeat_to_b([bytes(datagram[:dice.randrange(len(datagram) + 1)])])
        until_it_comes(pair.a, pair.b, "still there")
        assert pair.b.link.poll() is None


# ---- Another's implementation of the protocol ----

PEER = """
import socket, sys
own, other = sys.argv[1:]
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as vxlan:
    vxlan.bind((own, 4789))
    print("ready", flush=True)
    while True:
        packet = vxlan.recv(65536)
        # What comes for one address is sent back to who sent it, in the same network.
        frame = packet[8:]
        if not frame[0] & 1:
            vxlan.sendto(packet[:8] + frame[6:12] + frame[:6] + frame[12:], (other, 4789))
"""


@contextlib.contextmanager
def namespace():
    """A network of its own, and the words to run something in it."""
    holder = subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 3600"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        if holder.stdout.readline() != "up\n":
            pytest.skip("no namespaces here")
        yield ["nsenter", "--preserve-credentials", "--user", "--net", "--target", str(holder.pid)]
    finally:
        holder.kill()
        holder.wait()


def test_a_whole_frame_passes_a_path_of_small_packets(folder):
    with namespace() as inside:
        subprocess.run([*inside, "ip", "link", "set", "lo", "mtu", "1300"], check=True)
        (key_a, _), (key_b, _) = (new_key(folder / f"{name}.key") for name in "ab")
        port_a, port_b = free_port(), free_port()
        with contextlib.closing(Host(folder, "a", port_a, key_b, port_b, inside)) as a, \
             contextlib.closing(Host(folder, "b", port_b, key_a, port_a, inside)) as b:
            a.wait_until("up")
            until_it_comes(a, b, "x" * 1500)
            assert re.search(r"\d+  datagrams larger than the path's MTU", a.tunnel()["text"])


def test_wireguard_go_is_a_peer(folder):
    for needed in ("wireguard-go", "wg", "nsenter", "unshare", "ip"):
        if shutil.which(needed) is None:
            pytest.skip(f"no {needed}")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        pytest.skip("no /dev/net/tun")
    port_a, port_b = free_port(), free_port()
    key_a, address_a = new_key(folder / "a.key")
    key_b, address_b = new_key(folder / "b.key")
    with namespace() as inside, contextlib.ExitStack() as ends:
        def run(*command):
            subprocess.run([*inside, *map(str, command)], check=True, timeout=PATIENCE)

        def start(*command, **words):
            process = subprocess.Popen([*inside, *map(str, command)], **words)
            ends.callback(process.wait)
            ends.callback(process.kill)
            return process

        # Its socket for questions is a file of a fixed folder, by the device's name.
        device = f"bh{os.getpid() % 1000000}"
        start("wireguard-go", "--foreground", device, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([*inside, "wg", "show", device], capture_output=True).returncode != 0:
            assert time.monotonic() < deadline, "wireguard-go does not start"
            time.sleep(0.05)
        run("wg", "set", device, "private-key", folder / "b.key", "listen-port", port_b, "peer", key_a, "allowed-ips", f"{address_a}/128")
        run("ip", "-6", "address", "add", f"{address_b}/128", "dev", device)
        run("ip", "link", "set", device, "up")
        run("ip", "-6", "route", "add", f"{address_a}/128", "dev", device)
        peer = start("/usr/bin/python3", "-c", PEER, address_b, address_a, stdout=subprocess.PIPE, text=True)
        assert peer.stdout.readline() == "ready\n"
        host = Host(folder, "a", port_a, key_b, port_b, inside)
        ends.callback(host.close)
        frame = words("a", "b", "hello, wireguard-go")
        back = frame[6:12] + frame[:6] + frame[12:]
        while back not in host.card.received():
            assert time.monotonic() < deadline, host.log.read_text() + str(host.tunnel())
            host.card.send(frame)
            time.sleep(0.05)
        state = host.tunnel()
        assert state["state"] == "up" and state["forged"] == state["refused"] == 0, state
