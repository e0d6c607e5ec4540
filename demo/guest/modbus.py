"""A Modbus/TCP client of one connection, for holding registers; made again when it is lost. Modbus Application Protocol V1.1b3."""
import socket
import struct
import threading


class ModbusError(Exception):
    """The server's exception code, in words."""


WORDS = {1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "server device failure"}


class Client:
    def __init__(self, host, port=502, unit=1, timeout_s=3):
        self.peer, self.unit, self.timeout_s = (host, port), unit, timeout_s
        self.lock, self.connection, self.transaction = threading.Lock(), None, 0

    def read(self, address, count):
        """The values of count registers from address. Raises OSError, ModbusError."""
        answer = self.ask(struct.pack(">BHH", 3, address, count))
        if len(answer) != 2 + 2 * count:
            raise ModbusError("an answer of another length")
        return list(struct.unpack(f">{count}H", answer[2:]))

    def write(self, address, value):
        """One register. Raises OSError, ModbusError."""
        self.ask(struct.pack(">BHH", 6, address, value))

    def ask(self, request):
        with self.lock:
            try:
                if self.connection is None:
                    self.connection = socket.create_connection(self.peer, self.timeout_s)
                    self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.transaction = (self.transaction + 1) % 65536
                self.connection.sendall(struct.pack(">HHHB", self.transaction, 0, 1 + len(request), self.unit) + request)
                transaction, _, length, _ = struct.unpack(">HHHB", self.receive(7))
                answer = self.receive(length - 1)
                if transaction != self.transaction or not answer:
                    raise OSError("an answer to another question")
            except (OSError, struct.error) as error:
                if self.connection is not None:
                    self.connection.close()
                self.connection = None
                raise OSError(str(error)) from error
        if answer[0] & 0x80:
            raise ModbusError(WORDS.get(answer[1] if len(answer) > 1 else 0, "an exception"))
        return answer

    def receive(self, count):
        received = b""
        while len(received) < count:
            part = self.connection.recv(count - len(received))
            if not part:
                raise OSError("the connection has ended")
            received += part
        return received
