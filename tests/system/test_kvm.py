"""The KVM engine: on this machine's /dev/kvm with small guests, and with Debian where KVM is real (tools/nested)."""
import os
import shlex
import shutil

import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, debian_arguments, run

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
NESTED = ROOT / "tools/nested"
KVM_TEST = ROOT / "build/release/src/kvm_test"
VMM_TEST = ROOT / "build/release/src/vmm_test"


def nested(commands, files, timeout):
    """Runs a line of shell where KVM is real."""
    packed = [argument for file in files for argument in ("--file", file)]
    return run(["--cpus", 2, "--timeout", timeout, *packed, "--", shutil.which("busybox"), "sh", "-c", commands], program=NESTED,
               timeout=timeout + 20)


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm that this user may open")
def test_small_guests_run_on_this_host():
    result = run([], program=KVM_TEST, timeout=60)
    assert result.status == 0, result.describe()
    assert "SKIPPED" not in result.output, result.describe()


@needs_qemu
def test_small_guests_run_on_real_kvm_and_move_between_the_engines():
    commands = f"{KVM_TEST} && {VMM_TEST} --gtest_filter='EngineMove.*'"
    result = nested(commands, files=[KVM_TEST, VMM_TEST], timeout=150)
    assert result.status == 0, result.describe()
    assert "SKIPPED" not in result.output, result.describe()
    assert "so hardware carries it" in result.output, result.describe()


# x86-64-v2, because QEMU 7.2's TCG does not let a nested hypervisor intercept XSETBV: with AVX, the guest would set the XCR0 of
# the host and find that its own has not changed.
@needs_qemu
@pytest.mark.parametrize("engine", ["kvm", "auto"])
def test_debian_with_two_vcpus_boots_on_real_kvm(engine):
    arguments = debian_arguments(cpus=2, engine=engine, memory="512M", extra=["--cpu-model", "x86-64-v2"])
    result = nested(shlex.join(map(str, [BULKHEAD, *arguments])), files=[BULKHEAD, GUESTS / "cloud/vmlinuz", GUESTS / "cloud/initrd"],
                    timeout=400)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert result.field("cpus") == "2", result.describe()
    assert result.field("clocksource") == "kvm-clock", result.describe()
    assert "engine soft" not in result.output, result.describe()
    assert result.status == 0, result.describe()
    assert not result.complaints(), result.describe()


def test_auto_says_why_it_took_its_engine():
    result = run(debian_arguments(engine="auto"), timeout=240)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert "engine" in result.errors and ("kvm" in result.errors), result.describe()
