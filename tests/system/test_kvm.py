"""The KVM engine: on this machine's /dev/kvm with small guests, and with Debian where KVM is real (tools/nested)."""
import os
import shutil

import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, debian_arguments, run

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
NESTED = ROOT / "tools/nested"
KVM_TEST = ROOT / "build/release/src/kvm_test"


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm that this user may open")
def test_small_guests_run_on_this_host():
    result = run([], program=KVM_TEST, timeout=60)
    assert result.status == 0, result.describe()
    assert "SKIPPED" not in result.output, result.describe()


@needs_qemu
def test_small_guests_run_on_real_kvm():
    result = run(["--timeout", 100, "--", KVM_TEST], program=NESTED, timeout=120)
    assert result.status == 0, result.describe()
    assert "so hardware carries it" in result.output, result.describe()


@needs_qemu
@pytest.mark.parametrize("engine", ["kvm", "auto"])
def test_debian_with_two_vcpus_boots_on_real_kvm(engine):
    files = [argument for name in ("vmlinuz", "initrd") for argument in ("--file", GUESTS / "cloud" / name)]
    result = run(["--cpus", 2, "--memory", 2048, "--timeout", 400, *files, "--", BULKHEAD,
                  *debian_arguments(cpus=2, engine=engine, memory="512M")], program=NESTED, timeout=420)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert result.field("cpus") == "2", result.describe()
    assert result.status == 0, result.describe()
    assert not result.complaints(), result.describe()


def test_auto_says_why_it_took_its_engine():
    result = run(debian_arguments(engine="auto"), timeout=240)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert "engine" in result.errors and ("kvm" in result.errors), result.describe()
