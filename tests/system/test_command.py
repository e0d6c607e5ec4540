"""The command as its user meets it: signals, consoles, errors that name what is wrong, resets and exit statuses."""
import os
import pathlib
import signal
import socket
import subprocess
import time

import pexpect
import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, debian_arguments, run

TINY = ["run", "--engine", "soft", "--memory", "16M"]


def wait_for(path, text, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if pathlib.Path(path).exists() and text in pathlib.Path(path).read_text(errors="replace"):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("arguments,needles", [
    (["run"], ["kernel"]),
    (["run", "--kernel", "/nowhere/vmlinuz"], ["/nowhere/vmlinuz", "No such file"]),
    (["run", "--kernel", "/etc/passwd"], ["/etc/passwd"]),
    (["run", "--kernel", "{hello}", "--memory", "3M"], ["--memory", "3M"]),
    (["run", "--kernel", "{hello}", "--memory", "lots"], ["--memory", "lots"]),
    (["run", "--kernel", "{hello}", "--cpus", "17"], ["--cpus", "17", "16"]),
    (["run", "--kernel", "{hello}", "--cpu-model", "z80"], ["z80", "x86-64-v3"]),
    (["run", "--kernel", "{hello}", "--engine", "warp"], ["warp", "soft"]),
    (["run", "--kernel", "{hello}", "--disk", "/nowhere/disk"], ["/nowhere/disk"]),
    (["run", "--kernel", "{hello}", "--serial", "carrier-pigeon"], ["carrier-pigeon"]),
    (["run", "--kernel", "{hello}", "--frobnicate"], ["--frobnicate"]),
    (["run", "/nowhere/vm.yaml"], ["/nowhere/vm.yaml"]),
])
def test_what_is_wrong_is_named_in_one_line(arguments, needles):
    result = run([a.format(hello=GUESTS / "tiny/hello") for a in arguments], timeout=20)
    assert result.status not in (0, None) and result.status > 0, result.describe()
    for needle in needles:
        assert needle in result.errors, result.describe()
    assert len(result.errors.strip().splitlines()) <= 2, result.describe()


def test_a_machine_comes_from_a_file(tmp_path):
    vm = tmp_path / "vm.yaml"
    vm.write_text(f"kind: VirtualMachine\nmetadata:\n  name: hello\nspec:\n  memory: 16M\n  engine: soft\n  debug-exit: true\n"
                  f"  boot:\n    kernel: {GUESTS}/tiny/hello\n    cmdline: seed=5\n")
    result = run(["run", vm], timeout=20)
    assert result.status == 43, result.describe()
    assert "hello seed 0000000000000005" in result.output
    vm.write_text(vm.read_text().replace("memory:", "memry:"))
    result = run(["run", vm], timeout=20)
    assert "vm.yaml:5" in result.errors and "memry" in result.errors, result.describe()


def test_reset_ends_the_machine_when_it_is_not_to_reboot():
    result = run([*TINY, "--kernel", GUESTS / "tiny/reboot", "--no-reboot"], timeout=30)
    assert result.output.count("boot") == 1, result.describe()
    assert result.status not in (0, None), result.describe()


def test_a_signal_presses_the_power_button_and_a_second_one_stops(tmp_path):
    log = tmp_path / "serial"
    arguments = [str(a) for a in debian_arguments(task="idle")]
    process = subprocess.Popen([str(BULKHEAD), *arguments, "--serial", f"file:{log}"], stdin=subprocess.DEVNULL)
    try:
        assert wait_for(log, "USER SPACE REACHED"), log.read_text()[-3000:]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, log.read_text()[-3000:]
    finally:
        process.kill()
    process = subprocess.Popen([str(BULKHEAD), "run", "--engine", "soft", "--kernel", str(GUESTS / "tiny/spin"), "--memory", "16M",
                                "--serial", f"file:{log}"], stdin=subprocess.DEVNULL)
    try:
        assert wait_for(log, "spinning")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert process.poll() is None, "one signal must not stop a guest that ignores its button"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) > 0
    finally:
        process.kill()


def test_a_terminal_talks_to_the_guest_and_comes_back():
    child = pexpect.spawn(str(BULKHEAD), [str(a) for a in debian_arguments(task="shell")], timeout=90, encoding="utf-8",
                          dimensions=(24, 120))
    child.expect(r"\^\]")
    child.expect("Type 'poweroff -f'")
    child.expect("# ")
    child.sendline("echo $((6 * 7))")
    child.expect("42")
    child.sendline("poweroff -f")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_the_serial_line_is_a_socket(tmp_path):
    path = tmp_path / "serial.sock"
    process = subprocess.Popen([str(BULKHEAD), *[str(a) for a in debian_arguments(task="shell")], "--serial", f"socket:{path}"],
                               stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(90)
            peer.connect(str(path))
            seen = b""
            while b"# " not in seen:
                seen += peer.recv(4096)
            peer.sendall(b"echo over the $((40 + 2))nd line; poweroff -f\n")
            while b"over the 42nd line" not in seen:
                seen += peer.recv(4096)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


def test_statistics_and_traces_appear_when_asked_for(tmp_path):
    result = run([*TINY, "--kernel", GUESTS / "tiny/hello", "--debug-exit", "--stats", "--trace", "exits"], timeout=30)
    assert result.status == 43, result.describe()
    assert "instructions" in result.errors + result.output, result.describe()
    assert "3f8" in result.errors.lower(), result.describe()


def test_help_and_the_manual_page_name_every_option():
    result = run(["run", "--help"], timeout=10)
    manual = "".join(path.read_text() for path in ROOT.glob("**/bulkhead.1") if "build" not in path.parts)
    for option in ["--kernel", "--initrd", "--cmdline", "--cpus", "--cpu-model", "--memory", "--disk", "--serial", "--engine",
                   "--debug-exit", "--gdb", "--no-reboot", "--trace", "--perf-map", "--stats"]:
        assert option in result.output, result.describe()
        assert option in manual.replace("\\-", "-"), f"{option} is not in the manual page"
