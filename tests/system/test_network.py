"""A guest on user-mode NAT: DHCP, HTTP to the host and back through a forward, with Debian's own virtio driver."""
import hashlib
import http.server
import os
import re
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from bulkhead import BULKHEAD, debian_arguments, run


class Served:
    """An HTTP server on the host's loopback with one large file; /file.done is there once told so."""

    def __init__(self):
        self.content = os.urandom(3_000_000)
        self.finished = threading.Event()
        served = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                found = self.path == "/file" or (self.path == "/file.done" and served.finished.is_set())
                self.send_response(200 if found else 404)
                body = served.content if self.path == "/file" else b""
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetch(url, seconds):
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_guest_speaks_through_nat_in_both_directions(cpus, tmp_path):
    served, forwarded = Served(), free_port()
    arguments = debian_arguments(task="network", cpus=cpus, extra_command_line=f"net.fetch=http://10.0.2.2:{served.port}/file",
                                 extra=["--name", "plc-7", "--stats", "--nic", f"nat,host=on,forward=tcp:127.0.0.1:{forwarded}:8080"])
    output, errors = tmp_path / "out", tmp_path / "err"
    try:
        with output.open("wb") as out, errors.open("wb") as err:
            process = subprocess.Popen([str(BULKHEAD), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            try:
                back = fetch(f"http://127.0.0.1:{forwarded}/fetched", 90)
                served.finished.set()
                status = process.wait(timeout=60)
            finally:
                process.kill()
                process.wait()
    finally:
        served.close()
        said = output.read_text(errors="replace") + errors.read_text(errors="replace")
        print(said[-6000:])
    assert back == served.content
    assert status == 0
    assert "address: 10.0.2.15" in said
    assert f"fetched: {hashlib.sha256(served.content).hexdigest()} {len(served.content)}" in said
    assert "NETWORK DONE" in said
    assert "mtu: 1500" in said and "carrier: 1" in said
    counters = dict(re.findall(r"^  (frames [a-z ]+?) +([0-9 ]+)$", said, re.MULTILINE))
    assert counters["frames refused"] == counters["frames too large"] == "0"


def test_the_host_itself_is_closed_to_the_guest_unless_opened():
    served = Served()
    served.finished.set()
    try:
        arguments = debian_arguments(task="network", extra_command_line=f"net.fetch=http://10.0.2.2:{served.port}/file",
                                     extra=["--nic", "nat"])
        result = run(arguments, timeout=40)
    finally:
        served.close()
    assert "address: 10.0.2.15" in result.output, result.describe()
    assert "fetched:" not in result.output, result.describe()


def test_cards_of_one_vlan_reach_each_other_on_a_switch_and_no_others():
    result = run(debian_arguments(task="switch", extra=["--nic", "switch=plant,vlan=10", "--nic", "switch=plant,vlan=10",
                                                        "--nic", "switch=plant,vlan=20"]), timeout=90)
    assert result.field("neighbour") == "5 packets transmitted, 5 packets received, 0% packet loss", result.describe()
    assert result.field("other VLAN") == "2 packets transmitted, 0 packets received, 100% packet loss", result.describe()
    assert result.status == 0, result.describe()


@pytest.mark.parametrize("card,complaint", [
    ("nat,forward=tcp:127.0.0.1:99999:80", "a port is 1 to 65535"),
    ("nat,mac=53:54:00:00:00:01", "no card's address"),
    ("cable", "allowed: nat, tap=NAME, switch=NAME, switch=/DIRECTORY, isolated or none"),
    ("tap=does-not-exist-anywhere", "tap"),
    ("none,host=on", "allowed: nat"),
])
def test_a_wrong_card_is_named(card, complaint):
    arguments = debian_arguments(extra=["--nic", card])
    result = run(arguments, timeout=20)
    assert result.status == 2
    assert f"--nic '{card}'" in result.errors
    assert complaint in result.errors
