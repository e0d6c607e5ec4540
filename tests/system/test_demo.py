"""The demo: each claim that it prints holds, values move in a real browser, it ends by itself and on Ctrl-C and leaves nothing behind."""
import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pytest

from bulkhead import BULKHEAD, ROOT, SLOW

CACHE = ROOT / ".cache/plant"
BASE = ["is ready after", "values move", "setpoint of 1100 mm is in force", "it reads the level from the PLC", "it writes the setpoint",
        "it reads the engineer's registers", "it takes the engineer's address", "it takes another MAC address", "nmap scans",
        "logged: the write", "logged: the read", "logged: the engineer's address", "logged: the other MAC address", "logged: the scan",
        "all that was ever written to the PLC: register 10 written: 1100", "--modbus read", "--modbus write", "everything has ended"]
FULL = [*BASE, "the historian's database has", "the engineer lowers the limit", "the screen shows the alarm", "the office gets the level from the broker",
        "from station --to plc1"]


class Demo:
    """demo/run.py without a terminal, its lines as they come."""

    def __init__(self, folder, *options):
        assert (CACHE / "base.img").exists(), "run tools/plant_image"
        self.lines, self.rest = [], b""
        self.process = subprocess.Popen([sys.executable, str(ROOT / "demo/run.py"), "--directory", str(folder / "p"), *options], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "BULKHEAD": str(BULKHEAD)},
                                        start_new_session=True)

    def read(self, limit_s):
        """More of what it says; False at its end."""
        assert select.select([self.process.stdout], [], [], limit_s)[0], self.said()
        part = os.read(self.process.stdout.fileno(), 65536)
        *whole, self.rest = (self.rest + part).split(b"\n")
        self.lines += [line.decode(errors="replace") for line in whole]
        return bool(part)

    def wait_for(self, text, limit_s=600):
        deadline = time.monotonic() + limit_s
        while text not in self.said():
            assert time.monotonic() < deadline and self.read(limit_s), self.said()

    def end(self, limit_s=900):
        deadline = time.monotonic() + limit_s
        while self.read(limit_s):
            assert time.monotonic() < deadline, self.said()
        return self.process.wait(timeout=60)

    def said(self):
        return "\n".join(self.lines)

    def url(self):
        return re.search(r"open (http://127\.0\.0\.1:\d+/) in", self.said())[1]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.communicate(timeout=90)
            self.process.kill()
            self.process.wait()


@pytest.fixture
def demo():
    with contextlib.ExitStack() as ends:
        folder = pathlib.Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))

        def start(*options):
            started = Demo(folder, *options)
            ends.callback(nothing_is_left, started)
            ends.callback(started.stop)
            return started
        yield start


def nothing_is_left(demo):
    run_folder = CACHE / f"run-{demo.process.pid}"
    assert not run_folder.exists()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            assert str(run_folder) not in command, f"left behind: {command}"


def claims_hold(demo, claims):
    said = demo.said()
    assert "NOT SO" not in said, said
    for claim in claims:
        assert re.search(rf"^  ok .*{re.escape(claim)}", said, re.MULTILINE), f"missing: {claim}\n{said}"
    levels = re.search(r"level (\d+) mm, then (\d+) mm", said)
    assert levels[1] != levels[2]


def test_a_small_demo_runs_without_a_terminal_and_every_claim_holds(demo):
    small = demo("--small")
    assert small.end() == 0, small.said()
    claims_hold(small, BASE)
    assert "function 6 to unit 1, addresses 10 to 10 by conduit 'reporting'" in small.said()
    assert small.lines[-1] == "DEMO DONE"


@pytest.mark.parametrize("moment", ["1. Starting", "2. Values move"])
def test_ctrl_c_ends_it_at_any_time(demo, moment):
    small = demo("--small")
    small.wait_for(moment)
    os.killpg(small.process.pid, signal.SIGINT)
    assert small.end(120) == 130, small.said()
    assert "Interrupted." in small.said() and "  ok     everything has ended" in small.said()


# In the place of bulkhead: "up" says that it is there, and ends by SIGINT with the status that is asked for.
STAND_IN = """#!/bin/sh
trap 'exit STATUS' INT
echo $$ > FOLDER/up.pid
while :; do sleep 0.1; done
"""
STARTS = """
import os, pathlib, signal, sys, time
import run
folder = pathlib.Path(sys.argv[1])
run.CACHE = folder
plant = run.Plant((), None)
plant.folder.mkdir()
plant.machines = ["plc1"]
die_with_parent = run.die_with_parent
def interrupted():
    # The child is there, and its parent does not know of it yet.
    die_with_parent()
    if sys.argv[2] == "early":
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(0.5)
run.die_with_parent = interrupted
def states():
    while not (folder / "up.pid").exists():
        time.sleep(0.05)
    raise KeyboardInterrupt
plant.states = states
try:
    plant.start(print)
except KeyboardInterrupt:
    print("Interrupted", plant.process is not None)
print(*plant.end())
"""


@pytest.mark.parametrize("moment,status,expected", [("early", 0, "True"), ("later", 0, "True"), ("later", 1, "True bulkhead up: status 1"),
                                                    ("later", 3, "False bulkhead up: status 3")])
def test_what_ctrl_c_ends_is_known_and_judged_by_its_end(tmp_path, moment, status, expected):
    """1 says that something was not ready in time, on a host under load: it has ended all the same."""
    program = tmp_path / "program"
    program.write_text(STAND_IN.replace("STATUS", str(status)).replace("FOLDER", str(tmp_path)))
    program.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", STARTS, str(tmp_path), moment], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "BULKHEAD": str(program), "PYTHONPATH": str(ROOT / "demo")}, check=False)
    assert done.stdout.rstrip() == f"Interrupted True\n{expected}", done.stdout + done.stderr
    if (tmp_path / "up.pid").exists():
        assert not pathlib.Path("/proc", (tmp_path / "up.pid").read_text().strip()).exists()


def test_the_screen_refuses_what_is_no_operators_request(demo):
    """Beside it, that a plant which stays ends well on Ctrl-C."""
    small = demo("--small", "--stay")
    small.wait_for("runs on until Ctrl-C")
    url = small.url()

    def set_to(body, **headers):
        request = urllib.request.Request(f"{url}setpoint", body, {"Content-Type": "application/json", "Origin": url.rstrip("/"), **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert set_to(b'{"value": 900}', Origin="http://elsewhere.example") == 403
    assert set_to(b'{"value": 900}', **{"Content-Type": "text/plain"}) == 403
    for wrong in (b'{"value": 5000}', b'{"value": "900"}', b'{"value": true}', b'{}', b'[]', b'nonsense', b'{"value": 9' + b"0" * 5000):
        assert set_to(wrong) == 400, wrong
    assert set_to(b'{"value": 900}') == 200
    with urllib.request.urlopen(url, timeout=60) as answer:
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        page = answer.read().decode()
    assert not re.search(r"(?:src|href)=\"(?!data:)|https?://(?!www\.w3\.org/2000/svg)", page), "the page needs something from outside"
    os.killpg(small.process.pid, signal.SIGINT)
    assert small.end(120) == 0, small.said()


# ---- With a browser ----

CHROMIUM = shutil.which("chromium")


def browse(folder, url, *options, virtual_ms=6000):
    done = subprocess.run([CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}",
                           f"--virtual-time-budget={virtual_ms}", *options, url], capture_output=True, text=True, timeout=300, check=True)
    return done.stdout


def shown(dom, name):
    """The text of the page's element with this id."""
    return re.search(rf'id="{name}"[^>]*>([^<]*)<', dom)[1]


@pytest.mark.skipif(not SLOW, reason="six machines and a browser; BULKHEAD_SLOW=1")
def test_the_whole_demo_in_a_browser(demo, tmp_path):
    assert CHROMIUM, "Debian's package chromium is missing; see tools/packages"
    full = demo("--stay")
    full.wait_for("runs on until Ctrl-C")
    url = full.url()
    first = browse(tmp_path / "b", url, "--dump-dom")
    deadline = time.monotonic() + 120
    while True:
        second = browse(tmp_path / "b", url, "--dump-dom")
        if shown(second, "level") != shown(first, "level") and int(shown(second, "stored")) > int(shown(first, "stored")):
            break
        assert time.monotonic() < deadline, "the values do not change"
    for dom in (first, second):
        assert shown(dom, "connection") == "PLC and historian answer"
        assert 0 <= int(shown(dom, "level")) <= 2000 and shown(dom, "setpoint") == "1100"
        assert shown(dom, "pump") in ("running", "stopped") and 0 <= int(shown(dom, "valve")) <= 100
        assert "Level above the high limit" in dom
        assert len(re.search(r'id="trend-level"[^>]* d="([^"]*)"', dom)[1].split("L")) > 5, "the trend has no samples"
    keep = pathlib.Path(os.environ.get("BULKHEAD_SCREENSHOTS", tmp_path))
    for name, options in (("wide", ["--window-size=1280,800"]), ("narrow", ["--window-size=500,1500"])):
        picture = keep / f"hmi-{name}.png"
        browse(tmp_path / "b", url, f"--screenshot={picture}", *options)
        data = picture.read_bytes()
        assert data.startswith(b"\x89PNG") and len(data) > 20_000, "the picture is empty"
    state = json.load(urllib.request.urlopen(f"{url}state", timeout=60))
    assert state["historian"]["stored"] > 10 and "high" in state["plc"]["alarms"]
    os.killpg(full.process.pid, signal.SIGINT)
    assert full.end(120) == 0, full.said()
    claims_hold(full, FULL)
