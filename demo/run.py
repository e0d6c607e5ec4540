#!/usr/bin/env python3
"""The demo behind "make demo": starts demo/plant.yaml, shows that values move, attacks from the office, and ends it all.

Each line that begins with "ok" was found to be true in this run; one that was not begins with "NOT SO", and the status is 1.
"""
import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BULKHEAD = os.environ.get("BULKHEAD", str(ROOT / "build/release/src/apps/bulkhead"))
CACHE = ROOT / ".cache/plant"
PLC, BROKER, STATION = "10.77.0.60", "10.77.0.20", "10.77.0.40"
OTHER_MAC = "02:00:00:00:00:99"
SMALL = ("plc1", "hmi", "desk")
START_LIMIT_S = 600
PORT = 8080  # of the host, as plant.yaml has it
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Of "bulkhead up": 1 is said by one that had something that was not ready in time, and the signals by one that had hardly begun.
ENDED = (0, 1, *(-number for number in ENDING))

INTRODUCTION = """
Bulkhead runs a plant: {count} Debian machines in zones, on its own engine, as ordinary processes of this user.

  zone         machine    what runs there                                       may reach
{machines}
  1. start them   2. see values move   3. attack from the office   4. ask why it was refused   5. end{stay}
  It takes about a minute. Ctrl-C ends everything at any time.
"""
MACHINES = """
  office       desk       an office computer; here the attacker sits            broker; 8 registers of the PLC, to read
  dmz          broker     MQTT broker (mosquitto)                               nobody
  supervision  historian  polls the PLC into a database (SQLite)                PLC, to read; broker
  supervision  hmi        the operator's screen, for your browser               PLC, to read; one register, to write
  engineering  station    the engineer's computer                               PLC
  control      plc1       a PLC (pymodbus) at a simulated tank                  nobody
"""


class Failed(Exception):
    """Nothing can follow."""


class Report:
    def __init__(self):
        self.wrong = 0

    @staticmethod
    def step(text):
        print(f"\n{text}", flush=True)

    @staticmethod
    def tell(text):
        print(textwrap.indent(text.rstrip(), "         "), flush=True)

    def claim(self, text, is_so, evidence=""):
        print(f"  {'ok' if is_so else 'NOT SO':<6} {text}", flush=True)
        if evidence:
            self.tell(evidence)
        self.wrong += not is_so


def free_port(wanted):
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return probe.getsockname()[1]
    raise Failed("no TCP port is free")


def die_with_parent():
    """In a child: SIGTERM when this process ends, however that is; and no signals of its terminal."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


@contextlib.contextmanager
def undisturbed():
    """Ctrl-C waits: between a child's start and its being known here it would leave one that nobody ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


class Plant:
    """The plant of demo/plant.yaml with disks of its own, or the machines of it that are named."""

    def __init__(self, machines, directory):
        for left in CACHE.glob("run-*"):  # by a demo that was killed
            if not pathlib.Path(f"/proc/{left.name[4:]}").exists():
                shutil.rmtree(left, ignore_errors=True)
        self.folder = CACHE / f"run-{os.getpid()}"
        self.file, self.process = self.folder / "plant.yaml", None
        self.options = ["--directory", str(directory)] if directory else []
        self.port = free_port(PORT)
        self.wanted, self.machines = machines, []

    def prepare(self):
        self.folder.mkdir()
        text = (ROOT / "demo/plant.yaml").read_text()
        self.machines = re.findall(r"^    ([a-z0-9]+):\n      kernel:", text, re.MULTILINE)
        if self.wanted:
            for name in set(self.machines) - set(self.wanted):
                # Lines stay, so that what names them is right.
                text = re.sub(rf"^    {name}:\n(      .*\n)*", lambda found: "#\n" * found[0].count("\n"), text, flags=re.MULTILINE)
            self.machines = [name for name in self.machines if name in self.wanted]
        text = text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{self.port}")
        self.file.write_text(text.replace("../.cache/plant/", "").replace("../.cache/guests", str(ROOT / ".cache/guests")))
        # An overlay names what is below it in its own folder only.
        os.link(CACHE / "base.img", self.folder / "base.img")
        for name in self.machines:
            self.bulkhead("image", "create", "-f", "qcow2", "-b", "base.img", "-F", "raw", str(self.folder / f"{name}.qcow2"), plant=False)

    def bulkhead(self, *words, plant=True, status=0):
        """What the command prints. status None: any."""
        done = subprocess.run([BULKHEAD, *words, *((str(self.file), *self.options) if plant else ())], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, errors="replace", timeout=120, check=False)
        if status is not None and done.returncode != status:
            raise Failed(f"bulkhead {' '.join(words)}: status {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def start(self, progress):
        with undisturbed():
            self.process = subprocess.Popen([BULKHEAD, "up", str(self.file), *self.options], stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=(self.folder / "up.log").open("wb"), preexec_fn=die_with_parent)
        shown, deadline = set(), time.monotonic() + START_LIMIT_S
        while len(shown) < len(self.machines):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed("the plant has not come up:\n" + (self.folder / "up.log").read_text(errors="replace")[-3000:])
            for name, state in self.states():
                if name in self.machines and name not in shown and state in ("ready", "late", "ended"):
                    if state != "ready":
                        raise Failed(f"{name} is {state}:\n{self.log(name)[-3000:]}")
                    shown.add(name)
                    progress(name)
            time.sleep(0.2)

    def states(self):
        """(name, stage) of all that runs; nothing before there is somebody to ask."""
        return re.findall(r"^(\S+) +(?:switch|link|machine) +(\w+)", self.bulkhead("ps", status=None), re.MULTILINE)

    def log(self, name):
        return self.bulkhead("logs", name)

    def end(self):
        """(whether everything ended when asked, what there is to say about it)"""
        status, said = 0, ""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGINT)
            try:
                status = self.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                status = self.process.wait()
                said = "it went on for 60 s; "
        if status > 0 or status not in ENDED:
            said += f"bulkhead up: status {status}\n" + (self.folder / "up.log").read_text(errors="replace")[-1500:]
        shutil.rmtree(self.folder, ignore_errors=True)
        return status in ENDED, said


class Console:
    """The shell at a machine's serial line."""

    def __init__(self, plant, machine):
        self.machine, self.count, self.said = machine, 0, b""
        self.process = subprocess.Popen([BULKHEAD, "console", machine, str(plant.file), *plant.options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def run(self, command, limit_s=180):
        """(status, output)"""
        self.count += 1
        mark, self.said = f"@{self.count}@".encode(), b""
        # The mark is put together by the shell, so that a terminal's echo is not taken for the end.
        self.process.stdin.write(f"({command}) 2>&1; echo \"@\"{self.count}\"@$?@\"\n".encode())
        self.process.stdin.flush()
        deadline = time.monotonic() + limit_s
        while (found := re.search(re.escape(mark) + rb"(\d+)@", self.said)) is None:
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise Failed(f"{self.machine}: '{command}' has not ended in {limit_s} s:\n{self.said.decode(errors='replace')[-2000:]}")
            part = os.read(self.process.stdout.fileno(), 65536)
            if not part:
                raise Failed(f"{self.machine}: its console has closed")
            self.said += part
        output = re.sub(r"^[#$~/ ]*[#$] ", "", self.said[:found.start()].decode(errors="replace").replace("\r", ""), flags=re.MULTILINE)
        return int(found[1]), output

    def close(self):
        self.process.kill()
        self.process.wait()


class Screen:
    """The HMI as a browser sees it, through the NAT forward."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}"

    def state(self):
        with urllib.request.urlopen(f"{self.url}/state", timeout=30) as answer:
            return json.load(answer)

    def wait_for(self, condition, limit_s=120):
        """The first state with the condition, None when there is none in time."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                state = self.state()
                if state["plc"] and condition(state):
                    return state
            time.sleep(0.5)
        return None

    def set(self, value):
        request = urllib.request.Request(f"{self.url}/setpoint", json.dumps({"value": value}).encode(),
                                         {"Content-Type": "application/json", "Origin": self.url})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status == 200


def mbpoll(words):
    return f"mbpoll -m tcp -a 1 -t 4 -0 -o 10 -1 -q {words}"


def values_move(report, screen, began, has_historian):
    first = screen.wait_for(lambda _: True)
    if first is None:
        raise Failed("the HMI shows no values")
    moved = screen.wait_for(lambda state: state["plc"]["level"] != first["plc"]["level"] and state["plc"]["cycles"] != first["plc"]["cycles"])
    if moved is None:
        raise Failed("the HMI's values do not change")
    plc = moved["plc"]
    report.claim(f"values move, {time.monotonic() - began:.0f} s after the start: level {first['plc']['level']} mm, then {plc['level']} mm, "
                 f"pump {'running' if plc['pump'] else 'stopped'}, valve {plc['valve']} % open", True)
    if has_historian:
        later = screen.wait_for(lambda state: state["historian"] and state["historian"]["stored"] >= 5)
        report.claim(f"the historian's database has {later['historian']['stored'] if later else 0} samples, and more with each poll", later is not None)


def operate(report, plant, screen):
    screen.set(1100)
    report.claim("the operator's setpoint of 1100 mm is in force (hmi -> plc1, one register, by conduit 'operating')",
                 screen.wait_for(lambda state: state["plc"]["setpoint"] == 1100) is not None)
    if "station" not in plant.machines:
        return
    console = Console(plant, "station")
    status, said = console.run(mbpoll(f"-r 20 {PLC} 950"))
    console.close()
    report.claim("the engineer lowers the limit of the alarm to 950 mm (station -> plc1, by conduit 'programming')",
                 status == 0 and "Written 1 references" in said, "" if status == 0 else said)
    state = screen.wait_for(lambda state: "high" in state["plc"]["alarms"])
    report.claim(f"the screen shows the alarm: level {state['plc']['level'] if state else '?'} mm is above it", state is not None)


def attack(report, plant, desk):
    def alone(command):
        """In a second of its own: the switch writes 20 refusals a second to its log, and machines look for each other all the time."""
        time.sleep(1.1)
        return desk.run(command)

    if "broker" in plant.machines:
        status, said = desk.run(f"mosquitto_sub -h {BROKER} -t plant/tank -C 3 -W 60")
        levels = re.findall(r'"level": (\d+)', said)
        report.claim(f"allowed: the office gets the level from the broker: {', '.join(levels)} mm", status == 0 and len(levels) == 3, "" if status == 0 else said)
    status, said = desk.run(mbpoll(f"-r 0 -c 2 {PLC}"))
    read = re.search(r"\[0\]:\s+(\d+)", said)
    report.claim(f"allowed: it reads the level from the PLC: {read[1] if read else '?'} mm", status == 0 and read is not None, "" if read else said)
    status, said = alone(mbpoll(f"-r 10 {PLC} 1700"))
    report.claim("refused: it writes the setpoint: the PLC never sees it, the attacker gets 'Illegal function'", status != 0 and "Illegal function" in said,
                 "" if "Illegal function" in said else said)
    status, said = alone(mbpoll(f"-r 20 -c 2 {PLC}"))
    report.claim("refused: it reads the engineer's registers: 'Illegal data address'", status != 0 and "Illegal data address" in said,
                 "" if "Illegal data address" in said else said)
    _, said = desk.run(f"ip addr flush dev eth0; ip addr add {STATION}/24 dev eth0; " + mbpoll(f"-r 10 {PLC} 1700")
                       + "; ip addr flush dev eth0; ip addr add 10.77.0.50/24 dev eth0")
    report.claim(f"refused: it takes the engineer's address {STATION} and writes: nothing comes back", "Connection failed" in said, "" if "Connection failed" in said else said)
    _, said = desk.run(f"mac=$(cat /sys/class/net/eth0/address); ip link set eth0 address {OTHER_MAC}; " + mbpoll(f"-r 0 {PLC}")
                       + "; ip link set eth0 address $mac")
    report.claim("refused: it takes another MAC address and reads: nothing comes back", "Connection failed" in said, "" if "Connection failed" in said else said)
    targets = [PLC, BROKER, STATION] if "broker" in plant.machines else [PLC]
    expected = {f"{PLC}:502"} | ({f"{BROKER}:1883"} if "broker" in plant.machines else set())
    for _ in range(3):  # a host under load may miss an answer
        _, said = alone(f"nmap -n -Pn --initial-rtt-timeout 2s --min-rtt-timeout 1s --max-retries 1 -p 22,80,102,502,1883,8086 {' '.join(targets)}")
        found, host = set(), ""
        for name, port in re.findall(r"^Nmap scan report for (\S+)|^(\d+)/tcp +open", said, re.MULTILINE):
            host = name or host
            if port:
                found.add(f"{host}:{port}")
        if not found < expected:
            break
    report.claim(f"refused: nmap scans {len(targets)} machines and finds what the conduits name, and nothing else: {', '.join(sorted(found))}",
                 found == expected, "" if found == expected else said)


LOGGED = [
    ("the write", r"desk\.0 -> plc1\.0 TCP 10\.77\.0\.50:\d+ -> 10\.77\.0\.60:502: refused: .*function 6 to unit 1, addresses? 10.*"),
    ("the read of other registers", r"desk\.0 -> plc1\.0 TCP 10\.77\.0\.50:\d+ -> 10\.77\.0\.60:502: refused: .*function 3 to unit 1, addresses? 20.*"),
    ("the engineer's address", r"desk\.0 sends as \S+ ARP 10\.77\.0\.40 asks for 10\.77\.0\.60: refused: forged address"),
    ("the other MAC address", rf"desk\.0 sends as {OTHER_MAC}.*: refused: forged MAC"),
    ("the scan", r"desk\.0 -> plc1\.0 TCP 10\.77\.0\.50:\d+ -> 10\.77\.0\.60:(?:22|80|102|1883|8086): refused: .*"),
]


def logged(report, plant):
    lines = plant.log("plant").splitlines()
    for what, pattern in LOGGED:
        found = next((line for line in lines if re.search(pattern, line)), None)
        report.claim(f"logged: {what}", found is not None, found or "")


def explain(report, plant):
    for source, question, expected in (("desk", "read", 0), ("desk", "write", 1), *((("station", "write", 0),) if "station" in plant.machines else ())):
        words = ["network", "explain", "--from", source, "--to", "plc1", "modbus", "--modbus", question]
        done = subprocess.run([BULKHEAD, *words, "--plant", str(plant.file)], capture_output=True, text=True, timeout=60, check=False)
        shown = done.stdout.replace(str(plant.file), "demo/plant.yaml")
        report.claim(f"bulkhead {' '.join(words)}", done.returncode == expected, shown + done.stderr)


def tour(report, plant, stay):
    began = time.monotonic()
    report.step("1. Starting")
    plant.start(lambda name: print(f"  ok     {name} is ready after {time.monotonic() - began:.1f} s", flush=True))
    screen = Screen(plant.port)
    report.step(f"2. Values move: open {screen.url}/ in your browser")
    values_move(report, screen, began, "historian" in plant.machines)
    operate(report, plant, screen)
    report.step("3. The attack from the office")
    desk = Console(plant, "desk")
    attack(report, plant, desk)
    desk.close()
    logged(report, plant)
    written = sorted(set(re.findall(r"register (\d+ written: \d+)", plant.log("plc1"))))
    expected = ["10 written: 1100"] + (["20 written: 950"] if "station" in plant.machines else [])
    report.claim(f"all that was ever written to the PLC: register {', register '.join(written)}", written == expected)
    report.step("4. Why")
    explain(report, plant)
    if stay:
        report.step(f"The plant runs on until Ctrl-C. The operator's screen: {screen.url}/")
        options = f" {plant.file}" + "".join(f" {word}" for word in plant.options)
        report.tell(f"{BULKHEAD} ps{options}\n{BULKHEAD} console desk{options}")
        with contextlib.suppress(KeyboardInterrupt):
            plant.process.wait()


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help=f"three machines: {', '.join(SMALL)}")
    parser.add_argument("--stay", action="store_true", help="leave the plant running behind the tour, until Ctrl-C")
    parser.add_argument("--directory", help="where sockets and logs are, as for 'bulkhead up'")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    report, plant, status = Report(), None, 0
    try:
        plant = Plant(SMALL if options.small else (), options.directory)
        plant.prepare()
        rows = [row for row in MACHINES.strip("\n").splitlines() if row.split()[1] in plant.machines]
        print(INTRODUCTION.format(count=len(plant.machines), machines="\n".join(rows) + "\n", stay=", when you say so" if options.stay else ""), end="", flush=True)
        tour(report, plant, options.stay)
    except KeyboardInterrupt:
        print("\nInterrupted.", flush=True)
        status = 130
    except (Failed, OSError, subprocess.SubprocessError) as error:
        print(f"\ndemo: {error}", file=sys.stderr, flush=True)
        status = 1
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)  # what ends, ends
    if plant is not None:
        report.step("5. Ending: power buttons, then switch and NAT")
        report.claim("everything has ended", *plant.end())
    if status == 0 and report.wrong:
        status = 1
    print(f"\n{'DEMO DONE' if status == 0 else 'DEMO ENDED, status ' + str(status)}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
