"""Plants: what their description says, and what a switch in a process of its own lets through between Debian guests."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pexpect
import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, SLOW, run
from frames import ACK, PSH, SYN, Card, arp, tcp, tcp_payload, udp
from switch_process import Switch, ask_switch

TANK = ROOT / "tests/system/plants/tank.yaml"
MACS = {"plc1": "02:00:00:00:00:01", "historian": "02:00:00:00:00:02", "desk": "02:00:00:00:00:03"}
ADDRESSES = {"plc1": "10.77.0.17", "historian": "10.77.0.10", "desk": "10.77.0.50"}


def tank_with_cards(folder, extra=""):
    """The tank with fixed MAC addresses, so that machines can be started by hand."""
    text = TANK.read_text()
    for name, address in ADDRESSES.items():
        text = text.replace(f"address: {address}}}", f"address: {address}, mac: {MACS[name]}}}")
    text = text.replace("network: 10.77.0.0/24", "network: 10.77.0.0/24" + extra)
    path = folder / "tank.yaml"
    path.write_text(text)
    return path


class Guest:
    def __init__(self, folder, switch, name, task):
        self.log = folder / f"{name}.log"
        card = f"switch={switch},port={name}.0,mac={MACS[name]}"
        kernel = GUESTS / "cloud"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(BULKHEAD), "run", "--engine", "soft", "--name", name, "--memory", "128M", "--kernel", str(kernel / "vmlinuz"),
                 "--initrd", str(kernel / "initrd"), "--nic", card, "--cmdline",
                 f"console=ttyS0 quiet panic=-1 task=plant plant.address={ADDRESSES[name]}/24 {task}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def said(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, text, seconds=60):
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.1)

    def end(self, seconds=60):
        self.process.wait(timeout=seconds)
        return self.said()

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="plant-") as made:
        yield pathlib.Path(made)


def test_a_plant_is_checked_explained_and_drawn(folder):
    checked = run(["plant", "check", TANK])
    assert checked.status == 0 and "4 zones, 3 conduits, 3 machines" in checked.output
    drawn = run(["plant", "graph", TANK, "-o", folder / "tank.svg"])
    assert drawn.status == 0 and "historian" in (folder / "tank.svg").read_text()
    refused = run(["network", "explain", "--plant", TANK, "--from", "historian", "--to", "plc1", "tcp/502", "--modbus", "write"])
    assert refused.status == 1 and "conduit 'polling': modbus" in refused.output, refused.describe()
    assert "function 16 to unit 1" in refused.output
    allowed = run(["network", "explain", "--plant", TANK, "--from", "historian", "--to", "plc1", "modbus", "--modbus", "read"])
    assert allowed.status == 0, allowed.describe()
    assert run(["network", "explain", "--plant", TANK, "--from", "desk", "--to", "plc1", "modbus"]).status == 1
    wrong = folder / "plant.yaml"
    wrong.write_text(TANK.read_text().replace("to: control", "to: controll"))
    complaint = run(["plant", "check", wrong])
    assert complaint.status == 2 and complaint.errors.startswith(f"bulkhead: {wrong}:23: spec.conduits.polling.to: no zone 'controll'")


def test_a_conduit_lets_reads_through_and_refuses_writes_and_strangers(folder):
    capture = folder / "capture.pcapng"
    switch = Switch(tank_with_cards(folder, f"\n      capture: {capture}"), folder / "s")
    guests = []
    try:
        guests.append(plc := Guest(folder, switch.folder, "plc1", "plant.serve=502"))
        plc.wait_for("SERVER: ready")
        server = ADDRESSES["plc1"]
        asks = ",".join(f"{server}:502:{ask}" for ask in ("read:5", "write:5", "read:99", "read:100"))
        guests.append(historian := Guest(folder, switch.folder, "historian", f"plant.ask={asks}"))
        guests.append(desk := Guest(folder, switch.folder, "desk", f"plant.ask={server}:502:write:5"))
        polled, attacked = historian.end(), desk.end()
        ports, rules, log = ask_switch(switch.folder, "ports"), ask_switch(switch.folder, "rules"), switch.said()
    finally:
        for guest in guests:
            guest.kill()
        switch.stop()
    assert f"ASKED {server}:502 read 5: 1005" in polled, polled[-2000:] + log
    assert f"ASKED {server}:502 write 5: exception 1" in polled, polled[-2000:] + log
    assert f"ASKED {server}:502 read 99: 1099" in polled
    assert f"ASKED {server}:502 read 100: exception 2" in polled
    assert f"ASKED {server}:502 write 5: no connection" in attacked
    assert "written" not in plc.said()
    assert re.search(r"historian\.0 -> plc1\.0 TCP 10\.77\.0\.10:\d+ -> 10\.77\.0\.17:502: refused: .*function 6 to unit 1, addresses 5 to 5", log), log
    assert "desk.0 -> plc1.0 ARP 10.77.0.50 asks for 10.77.0.17: refused: no conduit names it" in log, log
    assert re.search(r"^plc1\.0 +control +control +up ", ports, re.MULTILINE), ports
    assert re.search(r"^ +[1-9]\d*  conduit 'polling': modbus$", rules, re.MULTILINE), rules
    if shutil.which("tshark"):
        seen = subprocess.run(["tshark", "-r", str(capture), "-Y", "modbus.func_code == 3", "-T", "fields", "-e", "ip.src"],
                              capture_output=True, text=True, check=True).stdout
        assert ADDRESSES["historian"] in seen and server in seen


def test_machines_and_the_switch_outlive_each_other(folder):
    switch = Switch(tank_with_cards(folder), folder / "s")
    guests = []
    try:
        guests.append(plc := Guest(folder, switch.folder, "plc1", "plant.serve=502"))
        plc.wait_for("SERVER: ready")
        read = f"plant.ask={ADDRESSES['plc1']}:502:read:7"
        for round_number in range(2):
            switch.stop(signal.SIGKILL)
            started = time.monotonic()
            switch.start()
            while not re.search(r"^plc1\.0 .* up ", ask_switch(switch.folder, "ports"), re.MULTILINE):
                assert time.monotonic() - started < 5
                time.sleep(0.01)
            print(f"the card is back after {time.monotonic() - started:.3f} s")
            guests.append(historian := Guest(folder, switch.folder, "historian", read))
            assert "read 7: 1007" in historian.end(), historian.said()[-2000:] + switch.said()
        plc.kill()
        deadline = time.monotonic() + 5
        while "plc1.0': gone" not in switch.said().rsplit("ports and", 1)[1]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        descriptors = len(os.listdir(f"/proc/{switch.process.pid}/fd"))
        for round_number in range(20):
            with socket.socket(socket.AF_UNIX) as front_end:
                front_end.connect(str(switch.folder / "group-office.sock"))
                front_end.sendall(b"\x01\0\0\0\x01\0\0\0\0\0\0\0" if round_number % 2 else b"nonsense" * 4)
        deadline = time.monotonic() + 10
        while len(os.listdir(f"/proc/{switch.process.pid}/fd")) > descriptors:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for guest in guests:
            guest.kill()
        assert switch.stop() == 0, switch.said()
    assert not list(switch.folder.glob("*.sock")), "sockets stay behind"


def test_a_switch_gives_up_files_and_calls(folder):
    switch = Switch(tank_with_cards(folder), folder / "s")
    try:
        status = pathlib.Path(f"/proc/{switch.process.pid}/status").read_text()
    finally:
        switch.stop()
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


@pytest.mark.parametrize("card,complaint", [
    ("switch=/tmp", "which port?"),
    ("switch=/tmp,port=a/b", "port 'a/b': no name"),
    ("switch=/tmp/a.sock,port=b", "the switch is a socket already"),
])
def test_a_wrong_port_is_named(card, complaint):
    result = run(["run", "--kernel", GUESTS / "cloud/vmlinuz", "--nic", card], timeout=20)
    assert result.status == 2 and f"--nic '{card}'" in result.errors and complaint in result.errors


def test_a_plant_comes_up_in_order_answers_questions_and_goes_down(folder):
    plant = folder / "plant.yaml"
    plant.write_text((ROOT / "tests/system/plants/running.yaml").read_text().replace("FOLDER", str(GUESTS / "cloud")))
    there = ["--directory", folder / "p"]

    def ask(*words):
        return run([*words, plant, *there], timeout=60)

    up = run(["up", plant, "--detach", *there], timeout=120)
    try:
        log = (folder / "p/_up.log").read_text()
        listed, wrong = ask("ps"), ask("stop", "nobody")
        plc, historian, desk, switch = (ask("logs", name).output for name in ("plc1", "historian", "desk", "plant"))
        pids = [int(pid) for pid in re.findall(r"^\S+ +\S+ +\S+(?: \d+)? +(\d+) ", listed.output, re.MULTILINE)]
        plc_pid = int(re.search(r"^plc1 .*?ready +(\d+) ", listed.output, re.MULTILINE).group(1))
        switch_pid = int(re.search(r"^plant .*?ready +(\d+) ", listed.output, re.MULTILINE).group(1))
        os.kill(switch_pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not re.search(rf"^plant +switch +ready +(?!{switch_pid} )\d+ +2", (again := ask("ps")).output, re.MULTILINE):
            assert time.monotonic() < deadline, again.describe()
            time.sleep(0.1)
    finally:
        down = ask("down")
    assert up.status == 0, up.describe() + (folder / "p/_up.log").read_text()
    assert log.index("plc1: ready") < log.index("historian: ready"), log
    assert wrong.status == 1 and "no machine 'nobody'" in wrong.errors
    assert "read 5: 1005" in historian and "write 5: exception 1" in historian
    assert "no connection" in desk and "written" not in plc
    assert "function 6 to unit 1" in switch and "10.77.0.50 asks for 10.77.0.17" in switch, switch
    assert down.status == 0, down.describe()
    assert len(pids) >= 2 and plc_pid in pids
    for pid in pids:
        assert not pathlib.Path(f"/proc/{pid}").exists(), "a process is left"
    assert not list((folder / "p").glob("**/*.sock"))
    assert ask("ps").status == 2


def test_the_console_of_a_machine_is_a_terminal(folder):
    plant = folder / "plant.yaml"
    plant.write_text(f"""
kind: Plant
metadata: {{name: console}}
spec:
  switches: {{plant: {{}}}}
  zones: {{floor: {{}}}}
  machines:
    station:
      kernel: {GUESTS}/cloud/vmlinuz
      initrd: {GUESTS}/cloud/initrd
      memory: 128M
      engine: soft
      cmdline: console=ttyS0 quiet panic=-1 task=shell
      nics: {{zone: floor}}
      ready: {{log: "# ", within: 120s}}
""")
    there = ["--directory", folder / "p"]
    up = run(["up", plant, "--detach", *there], timeout=180)
    try:
        assert up.status == 0, up.describe()
        for answer in (42, 43):
            console = pexpect.spawn(str(BULKHEAD), ["console", "station", str(plant), *map(str, there)], timeout=60)
            console.expect_exact("leave with ^]")
            console.sendline(f"echo $(({answer - 1} + 1)) is the answer")
            console.expect_exact(f"{answer} is the answer")
            if answer == 42:
                refused = run(["console", "station", plant, *there])
                assert refused.status == 1 and "somebody else is at the console" in refused.errors, refused.describe()
            console.send("\x1d")
            console.expect(pexpect.EOF)
            console.close()
            assert console.exitstatus == 0
        assert "43 is the answer" in run(["logs", "station", plant, *there]).output
        # Through pipes what is typed goes in and what is answered comes out.
        piped = subprocess.Popen([str(BULKHEAD), "console", "station", str(plant), *map(str, there)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            said, _ = piped.communicate(b"echo end of the $((1 + 1))nd shift; poweroff -f\n", timeout=60)
        finally:
            piped.kill()
        assert b"end of the 2nd shift" in said and piped.returncode == 0
    finally:
        down = run(["down", plant, *there], timeout=60)
    assert down.status == 0, down.describe()


LINKED = """
kind: Plant
metadata: {name: linked}
spec:
  switches: {plant: {network: 10.77.0.0/24}}
  zones: {outside: {}, floor: {}}
  conduits:
    out: {from: floor, to: outside, services: tcp/SERVED}
    in: {from: outside, to: floor, services: http}
  machines: {}
  links:
    internet:
      zone: outside
      nat: {host: true, forward: "tcp:127.0.0.1:FORWARDED:10.77.0.10:80"}
"""


def test_a_link_to_outside_joins_the_plant_to_the_host(folder):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as unnamed:
        server.settimeout(60)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            forwarded = probe.getsockname()[1]
        plant = folder / "plant.yaml"
        plant.write_text(LINKED.replace("SERVED", str(server.getsockname()[1])).replace("FORWARDED", str(forwarded)))
        there = ["--directory", folder / "p"]
        up = run(["up", plant, "--detach", *there], timeout=120)
        try:
            assert up.status == 0, up.describe()
            card = Card(folder / "p/plant/group-floor.sock", "02:00:00:00:00:10", "10.77.0.10")
            gateway = Peer("10.77.0.1")
            for life in (1, 2):
                words = next(line for line in run(["ps", plant, *there]).output.splitlines() if line.startswith("internet ")).split()
                assert words[1:3] == ["link", "ready"] and words[4] == str(life), words
                for task in pathlib.Path(f"/proc/{words[3]}/task").iterdir():
                    assert "Seccomp:\t2" in (task / "status").read_text()
                gateway.mac = talk_until(card, arp(card, gateway.address), lambda frame: frame[12:14] == b"\x08\x06" and frame[28:32] == bytes((10, 77, 0, 1)))[6:12]
                # Out: what the conduit names reaches the host, and nothing else does.
                card.send(tcp(card, gateway, 3999 + life, unnamed.getsockname()[1], SYN, 1))
                port = server.getsockname()[1]
                answer = tcp_payload(talk_until(card, tcp(card, gateway, 4000 + life, port, SYN, 100), is_segment(port, SYN | ACK)))
                card.send(tcp(card, gateway, 4000 + life, port, ACK | PSH, 101, answer[3] + 1, b"from the floor"))
                accepted, _ = server.accept()
                with accepted:
                    accepted.settimeout(60)
                    assert accepted.recv(100) == b"from the floor"
                # In, by the forward.
                with socket.create_connection(("127.0.0.1", forwarded), timeout=60) as client:
                    frame = next(frame for frame in card.wait_for(is_segment(None, SYN)) if is_segment(None, SYN)(frame))
                    source, wanted, _, sequence, _, _ = tcp_payload(frame)
                    assert wanted == 80
                    card.send(tcp(card, gateway, 80, source, SYN | ACK, 500, sequence + 1))
                    card.send(tcp(card, gateway, 80, source, ACK | PSH, 501, sequence + 1, b"from the guest"))
                    assert client.recv(100) == b"from the guest"
                if life == 1:
                    os.kill(int(words[3]), signal.SIGKILL)
                    deadline = time.monotonic() + 60
                    while not re.search(r"^internet +link +ready +\d+ +2 ", run(["ps", plant, *there]).output, re.MULTILINE):
                        assert time.monotonic() < deadline
                        time.sleep(0.1)
            unnamed.setblocking(False)
            with pytest.raises(BlockingIOError):
                unnamed.accept()
            card.close()
        finally:
            down = run(["down", plant, *there], timeout=60)
        assert down.status == 0, down.describe()


class Peer:
    """An end of connections that is no card of ours."""

    def __init__(self, address, mac=b""):
        self.address, self.mac = address, mac


def is_segment(source_port, flags):
    def check(frame):
        segment = tcp_payload(frame)
        return segment is not None and source_port in (None, segment[0]) and segment[2] & (SYN | ACK) == flags
    return check


def talk_until(card, question, wanted):
    """Asks again until the answer comes, as TCP and ARP do: the first question may find nobody there."""
    deadline = time.monotonic() + 60
    while True:
        card.send(question)
        with contextlib.suppress(AssertionError):
            return next(frame for frame in card.wait_for(wanted, limit=1) if wanted(frame))
        assert time.monotonic() < deadline


DYING = """
kind: Plant
metadata: {name: dying}
spec:
  switches: {plant: {network: 10.77.0.0/24}}
  zones: {outside: {}, floor: {}}
  conduits:
    out: {from: floor, to: outside, services: tcp/80}
  machines:
    victim:
      kernel: FOLDER/vmlinuz
      initrd: FOLDER/initrd
      memory: 128M
      engine: soft
      cmdline: console=ttyS0 quiet panic=-1 task=plant plant.address=10.77.0.17/24 plant.serve=502
      nics: {zone: floor, address: 10.77.0.17, mac: "02:00:00:00:00:17"}
      ready: {modbus: {address: 0}, within: 300s}
      restart: true
  links:
    internet: {zone: outside, nat: {}}
"""


def test_a_machine_the_nat_and_the_switch_die_under_load_and_the_others_go_on(folder):
    """kill -9, in turn. What others say to each other meanwhile arrives, and descriptors, sockets and processes stay as many as they were."""
    rounds = 200 if SLOW else 3
    plant = folder / "plant.yaml"
    plant.write_text(DYING.replace("FOLDER", str(GUESTS / "cloud")))
    there = ["--directory", folder / "p"]
    up = run(["up", plant, "--detach", *there], timeout=360)
    worst = {"victim": 0.0, "internet": 0.0, "plant": 0.0}
    try:
        assert up.status == 0, up.describe()

        def processes():
            """name: (pid, starts) of what is ready"""
            listed = run(["ps", plant, *there], timeout=60).output
            return {name: (int(pid), int(starts)) for name, pid, starts in re.findall(r"^(\S+) +\w+ +ready +(\d+) +(\d+) ", listed, re.MULTILINE)}

        def descriptors():
            supervisor = re.search(r"^PPid:\t(\d+)", pathlib.Path(f"/proc/{processes()['plant'][0]}/status").read_text(), re.MULTILINE)[1]
            return len(os.listdir(f"/proc/{supervisor}/fd")), len(os.listdir(f"/proc/{processes()['plant'][0]}/fd"))

        socket_path = folder / "p/plant/group-floor.sock"
        one, other = Card(socket_path, "02:00:00:00:00:21", "10.77.0.21"), Card(socket_path, "02:00:00:00:00:22", "10.77.0.22")
        said = 0

        def talk():
            """A frame there and one back; how long that took, in s."""
            nonlocal said
            said += 1
            began = time.monotonic()
            for source, target in ((one, other), (other, one)):
                text = f"frame {said}".encode()
                source.send(frame := udp(source, target, 5000, 5001, text))
                target.wait_for(lambda seen, frame=frame: seen == frame)
            return time.monotonic() - began

        # Each card is who it says it is first.
        for card in (one, other):
            card.send(arp(card, "10.77.0.1"))
        talk()
        before = descriptors()
        for number in range(rounds):
            name = ("victim", "internet", "plant")[number % 3]
            alive = processes()
            gateway, victim = Peer("10.77.0.1", b"\xff" * 6), Peer("10.77.0.17", bytes.fromhex("020000000017"))
            for load in range(100):
                one.send_no_wait(udp(one, victim, 6000, load) if load % 2 else tcp(one, gateway, 4000 + load, 80, SYN))
            os.kill(alive[name][0], signal.SIGKILL)
            if name == "plant":
                for card in (one, other):
                    card.close()
                deadline = time.monotonic() + 60
                while processes().get("plant", alive["plant"]) == alive["plant"]:
                    assert time.monotonic() < deadline
                for card in (one, other):
                    card.connect()
                    card.send(arp(card, "10.77.0.1"))
            deadline = time.monotonic() + 300
            while True:
                worst[name] = max(worst[name], talk())
                now = processes()
                if all(each in now for each in worst) and now[name][1] == alive[name][1] + 1:
                    break
                assert time.monotonic() < deadline, now
        deadline = time.monotonic() + 60
        while any(now > then for now, then in zip(descriptors(), before)):
            assert time.monotonic() < deadline, (before, descriptors())
            time.sleep(0.1)
        print(f"{rounds} deaths; the longest round trip of others, in s: {worst}")
        pids = [pid for pid, _ in processes().values()]
        one.close()
        other.close()
    finally:
        down = run(["down", plant, *there], timeout=60)
    assert down.status == 0, down.describe()
    assert not [pid for pid in pids if pathlib.Path(f"/proc/{pid}").exists()], "a process is left"
    assert not list((folder / "p").glob("**/*.sock")) and not [name for name in os.listdir("/dev/shm") if "bulkhead" in name]


@pytest.mark.parametrize("change,complaint", [
    (("10.77.0.10:80", "80"), "allowed: a machine of the plant"),
    (("10.77.0.10:80", "10.78.0.10:80"), "allowed: a machine of the plant"),
    (("plant: {network: 10.77.0.0/24}", "plant: {}"), "needs the IPv4 network of switch 'plant'"),
    (("internet:", "plant:"), "a switch has this name"),
])
def test_a_wrong_link_is_named(folder, change, complaint):
    plant = folder / "plant.yaml"
    plant.write_text(LINKED.replace("SERVED", "80").replace("FORWARDED", "8080").replace(*change))
    result = run(["up", plant, "--directory", folder / "p"], timeout=60)
    assert result.status == 2 and complaint in result.errors and f"{plant}:" in result.errors, result.describe()


BARE = "kind: Plant\nmetadata: {name: bare}\nspec:\n  switches: {wire: {}}\n  zones: {floor: {}}\n"


def test_a_plant_that_runs_already_is_left_as_it_is(folder):
    plant = folder / "plant.yaml"
    plant.write_text(BARE)
    there = ["--directory", folder / "p"]
    first = run(["up", plant, "--detach", *there], timeout=60)
    try:
        said = (folder / "p/_up.log").read_text()
        second = run(["up", plant, "--detach", *there], timeout=60)
        kept = (folder / "p/_up.log").read_text()
    finally:
        down = run(["down", plant, *there], timeout=60)
    assert first.status == 0 and down.status == 0, first.describe() + down.describe()
    assert second.status == 1 and "plant.sock': another process listens there" in second.errors, second.describe()
    assert "plant 'bare': up" in said and kept == said
    assert (folder / "p/_up.log").read_text().startswith(said) and "plant 'bare': down" in (folder / "p/_up.log").read_text()


def test_a_machine_that_dies_at_each_start_is_given_up_waiting_for_and_goes_on(folder):
    plant = folder / "plant.yaml"
    plant.write_text(BARE + "  machines:\n    plc: {kernel: none, restart: true, nics: {zone: floor}, ready: {log: up}}\n")
    there = ["--directory", folder / "p"]
    up = run(["up", plant, "--detach", *there], timeout=120)
    try:
        deadline = time.monotonic() + 120
        while int(re.search(r"^plc .* (\d+)  floor", run(["ps", plant, *there], timeout=60).output, re.MULTILINE)[1]) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        log = run(["logs", "plc", plant, *there], timeout=60)
    finally:
        down = run(["down", plant, *there], timeout=60)
    assert up.status == 1 and f"plant 'bare': plc has ended with status 2; see {folder}/p/plc.log" in up.errors, up.describe()
    assert log.output.count(f"'{folder}/none'") >= 4, log.describe()
    assert down.status == 0, down.describe()


def test_a_plant_that_cannot_come_up_says_why(folder):
    plant = folder / "plant.yaml"
    text = (ROOT / "tests/system/plants/running.yaml").read_text().replace("FOLDER", str(GUESTS / "cloud"))
    plant.write_text(text.replace("plant.serve=502", "plant.ask=10.77.0.1:502:read:0").replace("within: 60s", "within: 3s"))
    up = run(["up", plant, "--detach", "--directory", folder / "p"], timeout=60)
    down = run(["down", plant, "--directory", folder / "p"], timeout=60)
    assert up.status == 1 and down.status == 0, up.describe() + down.describe()
    assert re.search(r"plant 'running': plc1 (is not ready in time|has ended with status)", up.errors), up.describe()
