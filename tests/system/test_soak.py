"""Many boots in a row: none fails, and neither memory nor descriptors grow."""
import os
import re
import subprocess
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, SLOW, run, run_debian

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
    log = tmp_path / "serial.log"
    process = subprocess.Popen([BULKHEAD, "run", "--engine", "soft", "--memory", "16M", "--kernel", GUESTS / "tiny/reboot",
                                "--serial", f"file:{log}"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        def held():
            """KiB of the process's own memory, KiB of guest RAM and translated code, open descriptors."""
            status = dict(re.findall(r"^(Rss\w+):\s+(\d+) kB", open(f"/proc/{process.pid}/status").read(), re.M))
            return int(status["RssAnon"]), int(status["RssShmem"]), len(os.listdir(f"/proc/{process.pid}/fd"))

        def sample(at_least):
            deadline = time.monotonic() + 60
            while not log.exists() or log.read_text().count("boot") < at_least:
                assert time.monotonic() < deadline and process.poll() is None, "the guest stopped rebooting"
                time.sleep(0.05)
            # A reset gives guest RAM back, so what is resident depends on the moment: the least of several moments says what stays.
            moments = []
            for _ in range(10):
                moments.append(held())
                time.sleep(0.013)
            return [min(values) for values in zip(*moments)]
        (own, shared, descriptors), (own_later, shared_later, descriptors_later) = sample(20), sample(500)
        assert descriptors_later == descriptors, f"descriptors went from {descriptors} to {descriptors_later}"
        assert own_later <= own * 1.1 + 256, f"the process's own memory went from {own} to {own_later} KiB"
        assert shared_later <= shared * 1.1 + 1024, f"guest RAM and translated code went from {shared} to {shared_later} KiB"
    finally:
        process.kill()
        process.wait()
