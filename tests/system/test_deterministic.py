"""Deterministic runs: one hash over RAM, vCPUs, devices and disks, whatever the host does meanwhile and whoever runs the instructions."""
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from bulkhead import GUESTS, SLOW, debian_arguments, run, run_debian

# --jit of each run.
ENGINES = ["on"] * 20 + ["off"] * 20 if SLOW else ["on", "on", "off"]
DETERMINISTIC = ["--deterministic", "--final-hash"]


def final_hash(result):
    match = re.search(r"^final hash: ([0-9a-f]{64})$", result.errors, re.MULTILINE)
    assert match, result.describe()
    return match.group(1)


def runs_under_differing_load(start):
    """One run alone, the others beside each other and beside programs that compute: start(n, options) gives a Run."""
    runs = [(n, [*DETERMINISTIC, "--jit", jit]) for n, jit in enumerate(ENGINES)]
    results = [start(*runs[0])]
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            results += pool.map(lambda one: start(*one), runs[1:])
    finally:
        for process in load:
            process.kill()
            process.wait()
    return results


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_debian_boot_ends_with_one_hash(cpus):
    results = runs_under_differing_load(lambda _, options: run_debian(cpus=cpus, extra=options, timeout=300))
    for result in results:
        assert "USER SPACE REACHED" in result.output, result.describe()
        assert result.status == 0 and not result.complaints(), result.describe()
        assert result.output == results[0].output
    assert len({final_hash(result) for result in results}) == 1


def test_four_threads_on_two_vcpus_end_with_one_hash():
    arguments = "selftest.args=--thread-seconds,1" if SLOW else "selftest.args=--thread-seconds,0.2,threads"
    results = runs_under_differing_load(
        lambda _, options: run_debian(task="selftest", cpus=2, extra_command_line=arguments, extra=options, timeout=480))
    for result in results:
        assert "SELFTEST STATUS 0" in result.output, result.describe()
    assert len({final_hash(result) for result in results}) == 1


def test_disks_are_part_of_it(tmp_path):
    def start(n, options):
        disk = tmp_path / f"disk{n}.img"
        shutil.copy(GUESTS / "disk.img", disk)
        return run_debian(task="demo", cpus=2, extra=[*options, "--disk", disk], timeout=300)

    results = runs_under_differing_load(start)
    for result in results:
        assert "disk: read back what was written" in result.output, result.describe()
    assert len({final_hash(result) for result in results}) == 1


def test_another_seed_is_another_run():
    one, other = (run_debian(extra=[*DETERMINISTIC, "--seed", seed]) for seed in (1, 2))
    assert final_hash(one) != final_hash(other)


def test_what_cannot_be_repeated_is_refused():
    for extra, reason in ((["--deterministic", "--engine", "kvm"], "--deterministic 'true': hardware does not count"),
                          (["--deterministic", "--gdb", "localhost:1"], "not together with --gdb"),
                          (["--seed", 1], "--seed '1': only for a deterministic run"),
                          (["--final-hash"], "--final-hash: only for a deterministic run")):
        result = run([*debian_arguments(), *extra])
        assert result.status == 2, result.describe()
        assert reason in result.errors and len(result.errors.splitlines()) == 1, result.describe()
