"""A network card in Python, for tests of the switch process: vhost-user's front end with rings in a memory of its own, and builders of frames.

Nothing here knows what the switch decides; it puts bytes into rings and takes bytes out."""
import array
import contextlib
import fcntl
import ipaddress
import mmap
import os
import select
import socket
import struct
import time

RING = 256
BUFFER = 2048
HEADER = 12
PATIENCE = 60
F_ADD_SEALS, F_SEAL_SHRINK = 1033, 2
RECEIVE, TRANSMIT = 0, 1
DESCRIPTORS, AVAILABLE, USED, BUFFERS = 0, 8192, 12288, 16384
RING_SPAN = BUFFERS + RING * BUFFER
USER_BASE = 0x7000_0000_0000
VERSION_1, PROTOCOL = 1 << 32, 1 << 30


class Card:
    """Plugs into a port's socket. send() waits while the switch has not taken what was given before."""

    def __init__(self, path, mac, address=None):
        self.path, self.mac, self.address = path, mac_bytes(mac), address
        self.connect()

    def connect(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(PATIENCE)
            try:
                self.socket.connect(str(self.path))
                self.introduce()
                return
            except OSError:
                # The switch is not there yet, or has not seen the end of who was here before.
                self.socket.close()
                assert time.monotonic() < deadline, f"nobody serves {self.path}"
                time.sleep(0.01)

    def ask(self, request, payload=b"", descriptors=(), answered=False):
        head = struct.pack("<III", request, 1, len(payload))
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.socket.sendmsg([head + payload], rights)
        if not answered:
            return 0
        reply = b""
        while len(reply) < 20:
            piece = self.socket.recv(20 - len(reply))
            if not piece:
                raise ConnectionResetError("the switch hung up")
            reply += piece
        assert struct.unpack_from("<I", reply)[0] == request
        return struct.unpack_from("<Q", reply, 12)[0]

    def introduce(self):
        file = os.memfd_create("card", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(file, 2 * RING_SPAN)
        fcntl.fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK)
        self.memory = mmap.mmap(file, 2 * RING_SPAN)
        self.words = memoryview(self.memory).cast("H")
        self.kicks = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        self.calls = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
        for ring in (RECEIVE, TRANSMIT):
            for index in range(RING):
                self.describe(ring, index, BUFFER)
                struct.pack_into("<H", self.memory, ring * RING_SPAN + AVAILABLE + 4 + 2 * index, index)
        self.given = [RING, 0]
        self.seen = [0, 0]
        self.publish(RECEIVE)
        try:
            features = self.ask(1, answered=True)
            assert features & VERSION_1 and features & PROTOCOL
            self.ask(15, answered=True)
            self.ask(16, struct.pack("<Q", 0))
            self.ask(3)
            self.ask(2, struct.pack("<Q", VERSION_1 | PROTOCOL))
            self.ask(5, struct.pack("<IIQQQQ", 1, 0, 0, 2 * RING_SPAN, USER_BASE, 0), [file])
            for ring in (RECEIVE, TRANSMIT):
                at = USER_BASE + ring * RING_SPAN
                self.ask(8, struct.pack("<II", ring, RING))
                self.ask(10, struct.pack("<II", ring, 0))
                self.ask(9, struct.pack("<IIQQQQ", ring, 0, at + DESCRIPTORS, at + USED, at + AVAILABLE, 0))
                self.ask(13, struct.pack("<Q", ring), [self.calls[ring]])
                self.ask(12, struct.pack("<Q", ring), [self.kicks[ring]])
            for ring in (RECEIVE, TRANSMIT):
                self.ask(18, struct.pack("<II", ring, 1))
            # An answer says that all before it was taken.
            self.ask(1, answered=True)
        except OSError:
            self.release()
            raise
        finally:
            os.close(file)

    def describe(self, ring, index, size):
        base = ring * RING_SPAN
        struct.pack_into("<QIHH", self.memory, base + DESCRIPTORS + 16 * index, base + BUFFERS + index * BUFFER, size,
                         2 if ring == RECEIVE else 0, 0)

    def release(self):
        for fd in self.kicks + self.calls:
            os.close(fd)
        self.kicks, self.calls = [], []
        self.words.release()
        self.memory.close()

    def close(self):
        self.socket.close()
        if self.kicks:
            self.release()

    def used(self, ring):
        return self.words[(ring * RING_SPAN + USED + 2) // 2]

    def publish(self, ring):
        """How many buffers the switch has been given, in one store: struct.pack_into() writes zeros first, and whoever reads those sees more
        buffers than the ring has and serves it no more."""
        self.words[(ring * RING_SPAN + AVAILABLE + 2) // 2] = self.given[ring] & 0xFFFF

    def give(self, frame):
        index = self.given[TRANSMIT] % RING
        at = RING_SPAN + BUFFERS + index * BUFFER
        self.memory[at + HEADER:at + HEADER + len(frame)] = frame
        struct.pack_into("<I", self.memory, RING_SPAN + DESCRIPTORS + 16 * index + 8, HEADER + len(frame))
        self.given[TRANSMIT] += 1
        self.publish(TRANSMIT)

    def kick(self, ring):
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self.kicks[ring], 1)

    def send(self, *frames):
        """Returns when the switch has taken all of them."""
        for frame in frames:
            if self.given[TRANSMIT] - self.seen[TRANSMIT] == RING:
                self.flush(RING // 2)
            self.give(frame)
        self.flush(0)

    def flush(self, left):
        deadline = time.monotonic() + PATIENCE
        self.kick(TRANSMIT)
        while True:
            self.seen[TRANSMIT] += (self.used(TRANSMIT) - self.seen[TRANSMIT]) & 0xFFFF
            if self.given[TRANSMIT] - self.seen[TRANSMIT] <= left:
                return
            assert time.monotonic() < deadline, f"{self.path}: the switch takes nothing"
            select.select([self.calls[TRANSMIT], self.socket], [], [], 0.002)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.calls[TRANSMIT])

    def send_no_wait(self, frame):
        """False when the ring is full."""
        self.seen[TRANSMIT] += (self.used(TRANSMIT) - self.seen[TRANSMIT]) & 0xFFFF
        if self.given[TRANSMIT] - self.seen[TRANSMIT] == RING:
            return False
        self.give(frame)
        self.kick(TRANSMIT)
        return True

    def received(self):
        """What has come since the last call."""
        frames = []
        count = (self.used(RECEIVE) - self.seen[RECEIVE]) & 0xFFFF
        for _ in range(count):
            index, size = struct.unpack_from("<II", self.memory, USED + 4 + 8 * (self.seen[RECEIVE] % RING))
            at = BUFFERS + index * BUFFER
            frames.append(self.memory[at + HEADER:at + size])
            struct.pack_into("<H", self.memory, AVAILABLE + 4 + 2 * (self.given[RECEIVE] % RING), index)
            self.seen[RECEIVE] += 1
            self.given[RECEIVE] += 1
        if count:
            self.publish(RECEIVE)
            self.kick(RECEIVE)
        return frames

    def wait_for(self, wanted, limit=PATIENCE):
        """Frames until one of them satisfies wanted."""
        deadline = time.monotonic() + limit
        frames = []
        while not any(map(wanted, frames)):
            assert time.monotonic() < deadline, f"{self.path}: not what was waited for: {frames[-3:]}"
            select.select([self.calls[RECEIVE]], [], [], 0.01)
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self.calls[RECEIVE])
            frames += self.received()
        return frames


# ---- Frames ----

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
BROADCAST = b"\xff" * 6


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", "")) if isinstance(text, str) else text


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(source, destination, kind, payload):
    return (mac_bytes(destination) + mac_bytes(source) + struct.pack(">H", kind) + payload).ljust(60, b"\0")


def ipv4(source, destination, protocol, payload, identification=0, flags=0, offset=0):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identification, flags << 13 | offset // 8, 64, protocol, 0,
                       ipaddress.IPv4Address(source).packed, ipaddress.IPv4Address(destination).packed)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(source, destination, protocol, payload, hop_limit=64):
    return struct.pack(">IHBB16s16s", 6 << 28, len(payload), protocol, hop_limit,
                       ipaddress.IPv6Address(source).packed, ipaddress.IPv6Address(destination).packed) + payload


def is_ipv6(address):
    return ":" in str(address)


def with_sum(source, destination, protocol, segment, at):
    pseudo = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed + struct.pack(">II", len(segment), protocol)
    return segment[:at] + struct.pack(">H", checksum(pseudo + segment)) + segment[at + 2:]


def packet(one, other, protocol, payload):
    """A frame from one card to another, of their addresses' version."""
    if is_ipv6(one.address):
        return ethernet(one.mac, other.mac, 0x86DD, ipv6(one.address, other.address, protocol, payload))
    return ethernet(one.mac, other.mac, 0x0800, ipv4(one.address, other.address, protocol, payload))


def tcp(one, other, source_port, port, flags, sequence=0, acknowledgement=0, payload=b""):
    """A segment from one card to another."""
    segment = struct.pack(">HHIIBBHHH", source_port, port, sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF, 5 << 4, flags, 65535, 0, 0) + payload
    return packet(one, other, TCP, with_sum(one.address, other.address, TCP, segment, 16))


def udp_datagram(source, destination, source_port, port, payload):
    datagram = struct.pack(">HHHH", source_port, port, 8 + len(payload), 0) + payload
    return with_sum(source, destination, UDP, datagram, 6)


def udp(one, other, source_port, port, payload=b"data"):
    return packet(one, other, UDP, udp_datagram(one.address, other.address, source_port, port, payload))


def ping(one, other, identification, reply=False):
    if is_ipv6(one.address):
        message = struct.pack(">BBHHH", 129 if reply else 128, 0, 0, identification, 1) + b"ping"
        return packet(one, other, ICMPV6, with_sum(one.address, other.address, ICMPV6, message, 2))
    message = struct.pack(">BBHHH", 0 if reply else 8, 0, 0, identification, 1) + b"ping"
    return packet(one, other, ICMP, message[:2] + struct.pack(">H", checksum(message)) + message[4:])


def neighbour(one, target):
    """Asks for an address: by ARP, or of IPv6 by a neighbour solicitation to the target's group."""
    if not is_ipv6(target):
        return arp(one, target)
    wanted = ipaddress.IPv6Address(target).packed
    group = ipaddress.IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + wanted[13:])
    message = struct.pack(">BBHI", 135, 0, 0, 0) + wanted + b"\x01\x01" + one.mac
    message = with_sum(one.address, group, ICMPV6, message, 2)
    return ethernet(one.mac, b"\x33\x33\xff" + wanted[13:], 0x86DD, ipv6(one.address, group, ICMPV6, message, 255))


def arp(one, target, sender=None, reply_to=None):
    """Asks for an address, or answers a card."""
    body = struct.pack(">HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2 if reply_to else 1, one.mac, ipaddress.IPv4Address(sender or one.address).packed,
                       reply_to.mac if reply_to else b"\0" * 6, ipaddress.IPv4Address(target).packed)
    return ethernet(one.mac, reply_to.mac if reply_to else BROADCAST, 0x0806, body)


def tcp_payload(frame):
    """Ports, flags, sequence, acknowledgement and bytes of a TCP frame without tags; None of another."""
    if frame[12:14] == b"\x08\x00" and frame[23] == TCP:
        length, at = struct.unpack_from(">H", frame, 16)[0], 14 + (frame[14] & 15) * 4
    elif frame[12:14] == b"\x86\xdd" and frame[20] == TCP:
        length, at = 40 + struct.unpack_from(">H", frame, 18)[0], 14 + 40
    else:
        return None
    source, port, sequence, acknowledgement, offset, flags = struct.unpack_from(">HHIIBB", frame, at)
    return source, port, flags, sequence, acknowledgement, frame[at + (offset >> 4) * 4:14 + length]
