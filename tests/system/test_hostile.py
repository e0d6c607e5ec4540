"""A guest that writes random values to every port, device register, MSR and ring ends nothing but itself."""
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import pytest

from bulkhead import GUESTS, ROOT, SLOW, Run

SANITIZED = pathlib.Path(os.environ.get("BULKHEAD_SANITIZED", ROOT / "build/fuzz/src/apps/bulkhead"))
TOTAL_SECONDS = 600 if SLOW else 45
# Ways in which the guest may end itself: power-off, debug-exit port (odd), triple fault; docs/run.md lists the statuses.
SANITIZER_SIGNS = ("AddressSanitizer", "UndefinedBehaviorSanitizer", "runtime error:", "LeakSanitizer", "internal error:")


def run_for(seconds, arguments):
    """A guest may end or hang itself; the process must still obey its user: the second SIGTERM stops it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started = time.monotonic()
        process = subprocess.Popen([str(SANITIZED), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        status = None
        for patience, signal_first in ((seconds + 5, False), (1, True), (60, True)):
            if signal_first:
                process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                pass
        else:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return Run(status, out.read().decode(errors="replace"), err.read().decode(errors="replace"),
                   time.monotonic() - started, 0)


@pytest.mark.skipif(not SANITIZED.exists(), reason=f"{SANITIZED} is not built (tools/dev build fuzz)")
def test_a_hostile_guest_ends_nothing_but_itself(tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    witness = tmp_path / "witness"
    witness.write_bytes(b"untouched" * 100)
    end = time.monotonic() + TOTAL_SECONDS
    seed = 0
    done = 0
    statuses = {}
    while time.monotonic() < end:
        seed += 1
        seconds = max(2, min(5, int(end - time.monotonic())))
        result = run_for(seconds, ["run", "--engine", "soft", "--cpus", 1 + seed % 4, "--memory", "32M", "--kernel",
                                   GUESTS / "tiny/hostile", "--cmdline", f"seed={seed} seconds={seconds}", "--disk", disk,
                                   "--debug-exit", "--serial", "stdio"])
        assert result.status is not None, f"seed {seed}: two signals did not stop the VM: {result.describe()}"
        for sign in SANITIZER_SIGNS:
            assert sign not in result.errors, f"seed {seed}: {result.describe()}"
        assert result.status >= 0, f"seed {seed} ended by signal {-result.status}: {result.describe()}"
        assert "HOSTILE BEGIN" in result.output, f"seed {seed}: {result.describe()}"
        statuses[result.status] = statuses.get(result.status, 0) + 1
        done += "HOSTILE DONE" in result.output
    assert witness.read_bytes() == b"untouched" * 100
    assert disk.stat().st_size == 1 << 20
    print(f"{seed} guests in {TOTAL_SECONDS} s, {done} ran to their end, statuses {statuses}")
