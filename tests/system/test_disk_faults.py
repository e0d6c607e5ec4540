"""A bad disk on purpose: the machine says that it is one, the guest meets what was asked for, and errors that are to be waited for are."""
import json
import re
import socket
import time

from test_disk_jobs import Machine


def status_of(machine):
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(60)
        control.connect(str(machine.control))
        control.sendall(b"status\n")
        return control.recv(4096).decode()


def stats_of(machine):
    return json.loads(machine.disk("stats", "-o", "json"))[0]


def wait_for(condition, machine, limit=180):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline and machine.process.poll() is None, machine.said()[-3000:]
        time.sleep(0.05)


def test_a_slow_disk_is_slow_and_says_so(tmp_path):
    machine = Machine(tmp_path, "qcow2", more=",fault=seed:7;delay:5ms;jitter:1ms")
    try:
        machine.wait_for_records(10)
        assert f"disk '{machine.base}': FAULTS ARE ON, on purpose: seed 7, delay 5000 us, jitter 1000 us" in machine.said()
        stats = stats_of(machine)
        for operation in ["read", "write", "flush"]:
            # Of all requests none was faster; the percentile is the upper end of its bucket.
            assert all(one["below_us"] > 5000 for one in stats[operation]["histogram"]), stats
        machine.quit()
    finally:
        machine.kill()


def test_errors_that_pause_the_machine_are_put_off_and_come_again(tmp_path):
    machine = Machine(tmp_path, "raw", more=",on-error=pause,fault=seed:1;write-error:100%")
    try:
        wait_for(lambda: "paused: disk" in status_of(machine), machine)
        assert re.search(r"fault on purpose 1: write of \d+ bytes at byte \d+ fails", machine.said())
        before = stats_of(machine)
        assert before["put_off"] > 0 and before["errors"] == 0
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(60)
            control.connect(str(machine.control))
            control.sendall(b"resume\n")
            assert control.recv(100) == b"done\n"
        wait_for(lambda: stats_of(machine)["put_off"] > before["put_off"], machine)
        wait_for(lambda: "paused: disk" in status_of(machine), machine)
        assert stats_of(machine)["errors"] == 0
    finally:
        machine.kill()
