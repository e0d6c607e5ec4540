"""The one speed that the first machine promises, against QEMU's TCG in the same run."""
import shutil
import statistics

import pytest

from bulkhead import GUESTS, run, run_debian

# Measures time, so nothing else may run beside it.
pytestmark = pytest.mark.alone

ROUNDS = 3
LIMIT = 8.0


def boot_with_tcg():
    folder = GUESTS / "cloud"
    result = run(["-accel", "tcg", "-cpu", "max", "-m", "512", "-display", "none", "-serial", "stdio", "-monitor", "none",
                  "-no-reboot", "-kernel", folder / "vmlinuz", "-initrd", folder / "initrd",
                  "-append", "console=ttyS0 panic=-1 task=boot"], timeout=180, program=shutil.which("qemu-system-x86_64"))
    assert "USER SPACE REACHED" in result.output, result.describe()
    return result.seconds


def boot_with_bulkhead():
    result = run_debian(timeout=240)
    assert "USER SPACE REACHED" in result.output, result.describe()
    return result.seconds


@pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed, so there is no peer to compare with")
def test_booting_takes_at_most_eight_times_as_long_as_with_tcg(capsys):
    pairs = [(boot_with_bulkhead(), boot_with_tcg()) for _ in range(ROUNDS)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    with capsys.disabled():
        print(f"\ncloud kernel, 1 vCPU, process start to power-off: bulkhead {statistics.median(p[0] for p in pairs):.2f} s, "
              f"tcg {statistics.median(p[1] for p in pairs):.2f} s, ratio {ratio:.2f}")
    assert ratio <= LIMIT
