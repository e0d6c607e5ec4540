"""The switch process under test: starts it, asks its control socket, ends it."""
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import time

from bulkhead import BULKHEAD

PATIENCE = 60


def ask_switch(folder, question):
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(PATIENCE)
        control.connect(str(folder / "control.sock"))
        control.sendall(question.encode() + b"\n")
        answer = b""
        while piece := control.recv(65536):
            answer += piece
    return answer.decode()


class Switch:
    def __init__(self, plant, folder):
        self.plant, self.folder = plant, folder
        self.log = folder.parent / "switch.log"
        self.start()

    def start(self):
        self.started = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([str(BULKHEAD), "switch", str(self.plant), "--directory", str(self.folder)],
                                            stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                ask_switch(self.folder, "ports")
                return
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()
            time.sleep(0.02)

    def ask(self, question):
        return ask_switch(self.folder, question)

    def port(self, name):
        """The words of a port's line: ZONE, GROUP, LINK, FRAMES IN, FRAMES OUT, REFUSED, LOST, and what was dropped."""
        line = next(line for line in self.ask("ports").splitlines() if line.startswith(name + " "))
        return line.split(None, 8)[1:]

    def counters(self, name):
        """What a port has counted, by name."""
        line = next(line for line in self.ask("counters").splitlines() if line.startswith(f"port {name} "))
        return {key: int(value) for key, value in (fact.split("=") for fact in line.split()[2:]) if value.isdigit()}

    def said(self):
        return self.log.read_text(errors="replace")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def memory_kib(self):
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text()).group(1))

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)
