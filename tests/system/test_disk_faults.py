"""A bad disk on purpose: the machine says that it is one, the guest meets what was asked for, and errors that are to be waited for are."""
import json
import re
import socket
import subprocess
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, disks_arguments, run, wait_until_listening
from test_disk_jobs import Machine


def said_to(path, word):
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(60)
        control.connect(str(path))
        control.sendall(word.encode() + b"\n")
        return control.recv(4096).decode().strip()


def status_of(machine):
    return said_to(machine.control, "status")


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
        assert said_to(machine.control, "resume") == "done"
        wait_for(lambda: stats_of(machine)["put_off"] > before["put_off"], machine)
        wait_for(lambda: "paused: disk" in status_of(machine), machine)
        assert stats_of(machine)["errors"] == 0
    finally:
        machine.kill()


def faulty_disk(folder, bus, more):
    image = folder / "disk.img"
    subprocess.run(["cp", "--sparse=always", GUESTS / "disk.img", image], check=True)
    return disks_arguments(["bulkhead"], "--disk", f"file={image},bus={bus},{more}")


@pytest.mark.parametrize("bus", ["nvme", "sata"])
def test_other_buses_put_errors_off_too_until_all_is_written(tmp_path, bus):
    control, log = tmp_path / "control", tmp_path / "log"
    arguments = faulty_disk(tmp_path, bus, "on-error=pause,fault=seed:1;write-error:40%")
    with log.open("wb") as output:
        process = subprocess.Popen([str(BULKHEAD), *map(str, arguments), "--control", str(control)], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until_listening(control)
        deadline, pauses = time.monotonic() + 300, 0
        while process.poll() is None:
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            try:
                if said_to(control, "status").startswith("paused: disk"):
                    pauses += 1
                    assert said_to(control, "resume") == "done"
            except OSError:  # it has ended
                pass
            time.sleep(0.05)
        said = log.read_text(errors="replace")
        assert process.returncode == 0 and pauses > 0, said[-3000:]
        assert "complaints: 0" in said and re.search(r"bulkhead read back: \w{64}", said), said[-3000:]
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("bus", ["nvme", "sata"])
def test_other_buses_tell_the_guest_of_errors_where_that_is_wanted(tmp_path, bus):
    vm = run(faulty_disk(tmp_path, bus, "on-error=report,fault=seed:1;write-error:100%"), timeout=300)
    assert vm.status == 0 and "DISKS DONE" in vm.output and "paused" not in vm.errors, vm.describe()
    assert int(vm.field("complaints")) > 0 and vm.field("bulkhead read back") is None, vm.describe()
