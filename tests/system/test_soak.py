"""Many boots in a row: none fails, and neither memory nor descriptors grow."""
import shutil

import pytest

from bulkhead import GUESTS, SLOW, run, run_debian

TINY_BOOTS = 500
DEBIAN_BOOTS = 20 if SLOW else 6


def test_a_tiny_guest_boots_again_and_again():
    peaks = []
    for seed in range(TINY_BOOTS):
        result = run(["run", "--engine", "soft", "--memory", "16M", "--kernel", GUESTS / "tiny/hello", "--cmdline", f"seed={seed}",
                      "--debug-exit", "--serial", "stdio"], timeout=30)
        assert result.status == 43, f"boot {seed}: {result.describe()}"
        assert f"hello seed {seed:016x}" in result.output, f"boot {seed}: {result.describe()}"
        peaks.append(result.peak_kib)
    early, late = sorted(peaks[:100])[50], sorted(peaks[-100:])[50]
    assert late <= early * 1.05 + 512, f"peak memory grew from {early} to {late} KiB"


def test_debian_boots_again_and_again():
    for number in range(DEBIAN_BOOTS):
        result = run_debian(cpus=1 + number % 2, timeout=240)
        assert "USER SPACE REACHED" in result.output and result.status == 0, f"boot {number}: {result.describe()}"
        assert not result.complaints(), f"boot {number}: {result.describe()}"


def test_one_process_that_reboots_its_guest_keeps_its_size(tmp_path):
    """The guest resets itself; the process must hold the same memory and descriptors after many resets as after a few."""
    import os
    import subprocess
    import time

    from bulkhead import BULKHEAD
    log = tmp_path / "serial.log"
    process = subprocess.Popen([BULKHEAD, "run", "--engine", "soft", "--memory", "16M", "--kernel", GUESTS / "tiny/reboot",
                                "--serial", f"file:{log}"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        def sample(at_least):
            deadline = time.monotonic() + 60
            while not log.exists() or log.read_text().count("boot") < at_least:
                assert time.monotonic() < deadline and process.poll() is None, "the guest stopped rebooting"
                time.sleep(0.05)
            resident = int(open(f"/proc/{process.pid}/statm").read().split()[1]) * 4
            return resident, len(os.listdir(f"/proc/{process.pid}/fd"))
        first, later = sample(20), sample(500)
        assert later[1] == first[1], f"descriptors went from {first[1]} to {later[1]}"
        assert later[0] <= first[0] * 1.1 + 1024, f"resident memory went from {first[0]} to {later[0]} KiB"
    finally:
        process.kill()
        process.wait()
