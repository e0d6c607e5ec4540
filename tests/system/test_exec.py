"""Commands in guests: the agent itself on a pseudo terminal in the place of a serial line, a guest's end played by the test, and a guest."""
import contextlib
import os
import pathlib
import pty
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time
import tty

import pexpect
import pytest

from bulkhead import BULKHEAD, GUESTS, run

AGENT = GUESTS / "agent"
PATIENCE_S = 120


@pytest.fixture
def folder():
    # A socket's path is short.
    with tempfile.TemporaryDirectory(prefix="exec-") as made:
        yield pathlib.Path(made)


class Line:
    """A machine's second serial line: one client at a time, the others are let in and turned away. hear(bytes) and say(bytes) are its
    other end."""

    def __init__(self, folder, end):
        self.end = end
        self.client = None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "plc1.agent"))
        self.listener.listen()
        self.wakes, self.wake = os.pipe()
        self.thread = threading.Thread(target=self.carry)
        self.thread.start()

    def carry(self):
        while True:
            waits = [self.listener, self.end, self.wakes] + [self.client] * (self.client is not None)
            ready, _, _ = select.select(waits, [], [])
            if self.wakes in ready:
                break
            if self.listener in ready:
                client, _ = self.listener.accept()
                if self.client is None:
                    self.client = client
                else:
                    client.close()
            if self.client in ready:
                said = b""
                with contextlib.suppress(ConnectionResetError):
                    said = self.client.recv(256)
                if said:
                    with contextlib.suppress(BrokenPipeError):
                        os.write(self.end, said)
                else:
                    self.client.close()
                    self.client = None
            if self.end in ready:
                heard = b""
                with contextlib.suppress(ConnectionResetError):
                    heard = os.read(self.end, 4096)
                if self.client is not None:
                    with contextlib.suppress(OSError):
                        self.client.sendall(heard)
        for each in (self.listener, self.client):
            if each is not None:
                each.close()

    def stop(self):
        os.write(self.wake, b".")
        self.thread.join()


@pytest.fixture
def agent(folder):
    master, slave = pty.openpty()
    tty.setraw(slave)
    process = subprocess.Popen([str(AGENT), os.ttyname(slave)])
    line = Line(folder, master)
    yield folder
    process.kill()
    process.wait()
    line.stop()
    os.close(master)
    os.close(slave)


def start(folder, *words, options=(), **more):
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.Popen([str(BULKHEAD), "exec", "--directory", str(folder), *options, "plc1", "--", *words], **pipes)


def execute(folder, *words, options=(), said=None):
    process = start(folder, *words, options=options, stdin=subprocess.DEVNULL if said is None else subprocess.PIPE)
    try:
        output, errors = process.communicate(said, timeout=PATIENCE_S)
    finally:
        process.kill()
    return process.returncode, output, errors.decode()


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError):
        return ") Z" not in pathlib.Path(f"/proc/{pid}/stat").read_text()
    return False


def test_output_status_and_words_come_as_they_are(agent):
    assert execute(agent, "echo", "[a,b]", "", "--", "-x", "a  b") == (0, b"[a,b]  -- -x a  b\n", "")
    assert execute(agent, "sh", "-c", "echo out; echo err >&2; exit 42") == (42, b"out\n", "err\n")
    assert execute(agent, "sh", "-c", "kill -9 $$")[0] == 128 + 9
    status, _, errors = execute(agent, "no-such-command")
    assert status == 127 and "agent: no-such-command: No such file" in errors
    assert execute(agent, "/etc/passwd")[0] == 126
    # What a command leaves running does not keep it from ending.
    status, left, _ = execute(agent, "sh", "-c", "sleep 600 & echo $!")
    os.kill(int(left), signal.SIGKILL)
    assert status == 0


def test_bytes_pass_in_both_directions(agent):
    everything = bytes(range(256)) * 400 + b"end without a newline"
    assert execute(agent, "cat", said=everything) == (0, everything, "")
    # A command that takes nothing of it, and one that takes the first byte.
    assert execute(agent, "true", said=everything)[0] == 0
    assert execute(agent, "head", "-c", "3", said=b"abc" + everything)[1] == b"abc"
    status, output, errors = execute(agent, "sh", "-c", "head -c 100000 /dev/zero; head -c 100000 /dev/zero >&2")
    assert (status, len(output), len(errors)) == (0, 100000, 100000)


def test_commands_wait_for_each_other_or_are_refused(agent):
    first = start(agent, "sh", "-c", "echo begins; cat", stdin=subprocess.PIPE)
    try:
        assert first.stdout.readline() == b"begins\n"
        status, _, errors = execute(agent, "true", options=("--within", "2"))
        assert status == 255 and "'plc1': another command runs there, for 2 s at least; one at a time" in errors
        later = start(agent, "echo", "later", options=("--within", str(PATIENCE_S)))
        first.communicate(b"", timeout=PATIENCE_S)
        assert first.returncode == 0
        assert later.communicate(timeout=PATIENCE_S)[0] == b"later\n" and later.returncode == 0
    finally:
        first.kill()


def test_commands_end_by_signals_by_the_time_limit_and_with_their_asker(agent):
    def begun(*options, command="echo $$; exec sleep 600"):
        process = start(agent, "sh", "-c", command, options=options)
        return process, int(process.stdout.readline())

    for number in (signal.SIGINT, signal.SIGTERM):
        process, pid = begun()
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == 128 + number and not is_alive(pid)
    # Whoever does not listen is killed by the second.
    process, pid = begun(command="trap '' INT; echo $$; while :; do sleep 0.1; done")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL and not is_alive(pid)
    process, pid = begun("--timeout", "1")
    assert process.wait(PATIENCE_S) == 124 and not is_alive(pid)
    assert b"'plc1': not done in 1 s" in process.stderr.read()
    # Of one that is gone without a word, the next one ends the command.
    process, pid = begun()
    process.kill()
    process.wait()
    assert is_alive(pid)
    assert execute(agent, "true")[0] == 0
    wait_until(lambda: not is_alive(pid))
    # Who reads the output has gone.
    process = start(agent, "yes")
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(PATIENCE_S) == 128 + signal.SIGPIPE


def test_a_terminal_gets_no_commands_of_the_guests(agent):
    words = "printf 'a\\033[2Jb\\rc\\302\\2332J \\303\\266\\n'"
    console = pexpect.spawn(str(BULKHEAD), ["exec", "--directory", str(agent), "plc1", "--", "sh", "-c", words], timeout=PATIENCE_S, encoding="utf-8")
    console.expect(pexpect.EOF)
    console.close()
    assert console.exitstatus == 0 and console.before == "a?[2Jbc?2J ö\r\n"
    # Ctrl-C at the terminal.
    console = pexpect.spawn(str(BULKHEAD), ["exec", "--directory", str(agent), "plc1", "--", "sh", "-c", "echo begins; exec sleep 600"], timeout=PATIENCE_S)
    console.expect("begins")
    console.sendintr()
    console.expect(pexpect.EOF)
    console.close()
    assert console.exitstatus == 130


def test_who_is_not_there_is_named(folder):
    status, _, errors = execute(folder, "true")
    assert status == 255 and errors == "bulkhead: the machine 'plc1' does not run\n"
    for words, complaint in (([], "which command?"), (["x" * 5000], "the command has 5000 bytes; allowed: 4096")):
        status, _, errors = execute(folder, *words)
        assert status == 2 and complaint in errors
    assert run(["exec", "--directory", folder, "a/b", "--", "true"]).status == 2
    assert "--" in run(["exec", "--help"]).output


def hostile(talk):
    """A guest that says talk(id) when it is called, again and again."""
    ours, theirs = socket.socketpair()

    def listen():
        with contextlib.suppress(OSError):
            while ours.recv(65536):
                pass

    def speak():
        heard = b""
        try:
            while not (called := re.search(rb"hello ([0-9a-f]{16})\n", heard)):
                heard += ours.recv(4096)
            threading.Thread(target=listen, daemon=True).start()
            for words in talk(called.group(1)):
                ours.sendall(words)
        except OSError:
            pass

    threading.Thread(target=speak, daemon=True).start()
    return ours, theirs


def begins(name):
    yield name + b" hello 1\n" + name + b" began\n"


def noise(name):
    yield from begins(name)
    for _ in range(200):
        yield os.urandom(20000) + b"\n" + name + b" out !" + os.urandom(30000) + b"\n" + name + b" took 18446744073709551615\n" + name + b" end 256\n"
    yield name + b" end 5\n"


def flood(name):
    yield from begins(name)
    line = name + b" out " + b"A" * 8000 + b"\n"
    while True:
        yield line * 8


@pytest.mark.parametrize("talk,status,complaint", [
    (lambda name: [], 255, "no agent answers in 2 s (docs/agent.md)"),
    (lambda name: [name + b" hello 7\n"], 255, "its agent speaks another version than 1"),
    (begins, 255, "its agent is not heard of for 2 s"),
    (noise, 5, ""),
], ids=["silent", "other version", "falls silent", "noise"])
def test_what_a_guest_says_costs_its_own_command_alone(folder, talk, status, complaint):
    ours, theirs = hostile(talk)
    line = Line(folder, theirs.fileno())
    try:
        ended, output, errors = execute(folder, "true", options=("--within", "2"))
        assert ended == status and complaint in errors, errors
        assert output == b""
    finally:
        ours.shutdown(socket.SHUT_RDWR)
        ours.close()
        line.stop()


def test_a_flood_can_be_ended_and_nothing_grows(folder):
    ours, theirs = hostile(flood)
    line = Line(folder, theirs.fileno())
    process = start(folder, "true", stdout=subprocess.DEVNULL)
    try:
        before = None
        for turn in range(40):
            time.sleep(0.1)
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            resident = int(re.search(r"VmRSS:\s+(\d+)", status).group(1))
            if turn == 20:  # it has long been loaded, and hears the flood
                before = resident
        assert resident < before + 4096
        process.send_signal(signal.SIGINT)
        # It does not listen to signals either: five seconds, and five more.
        assert process.wait(PATIENCE_S) == 128 + signal.SIGINT
    finally:
        process.kill()
        ours.shutdown(socket.SHUT_RDWR)
        ours.close()
        line.stop()


def test_commands_run_in_a_guest_and_say_whether_it_is_ready(folder):
    plant = folder / "plant.yaml"
    plant.write_text(f"""
kind: Plant
metadata: {{name: exec}}
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
      ready: {{exec: "[ -e /tmp/asked ] || {{ echo once > /tmp/asked; exit 1; }}", within: 120s}}
""")
    there = ["--directory", folder / "p"]

    def execute_there(*words, said=b""):
        process = subprocess.run([str(BULKHEAD), "exec", *map(str, there), "--timeout", "100", "station", "--", *words], input=said, capture_output=True,
                                 timeout=PATIENCE_S)
        return process.returncode, process.stdout, process.stderr.decode()

    up = run(["up", plant, "--detach", *there], timeout=180)
    try:
        assert up.status == 0, up.describe()
        # Ready is what said no and then yes.
        assert execute_there("cat", "/tmp/asked") == (0, b"once\n", "")
        everything = bytes(range(256)) * 64
        assert execute_there("cat", said=everything) == (0, everything, "")
        assert execute_there("sh", "-c", "echo out; echo err >&2; exit 42") == (42, b"out\n", "err\n")
        listed = execute_there("sh", "-c", "seq 1 3000; uname -s")
        assert listed[0] == 0 and listed[1].endswith(b"\n2999\n3000\nLinux\n") and len(listed[1].splitlines()) == 3001
        status, _, errors = execute_there("poweroff", "-f")
        assert status == 255 and "'station': the machine has ended" in errors
        wait_until(lambda: "does not run" in execute_there("true")[2])
    finally:
        down = run(["down", plant, *there], timeout=60)
    assert down.status == 0, down.describe()
