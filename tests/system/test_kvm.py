"""The KVM engine: on this machine's /dev/kvm with small guests, and with Debian where KVM is real (tools/nested)."""
import os
import re
import shlex
import shutil

import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, debian_arguments, run

needs_qemu = pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed")
NESTED = ROOT / "tools/nested"
KVM_TEST = ROOT / "build/release/src/kvm_test"
VMM_TEST = ROOT / "build/release/src/vmm_test"
CASES = ROOT / "build/release/tests/instructions/instruction_cases"
KNOWN_OF_TCG = ROOT / "tests/instructions/known_of_tcg.txt"
SYSTEM_CASES = [ROOT / f"tests/cases/{name}.case" for name in (
    "access", "descriptors", "exceptions", "far_transfers", "legacy_integer", "paging", "privileges", "segments", "tasks")]


def nested(commands, files, timeout):
    """Runs a line of shell where KVM is real: on one processor, whose scheduler lets several vCPUs take turns. With two, QEMU gives
    each a tenth of a second in turn, and on a busy host the ticks of a guest's two vCPUs fill all of it."""
    packed = [argument for file in files for argument in ("--file", file)]
    return run(["--timeout", timeout, *packed, "--", shutil.which("busybox"), "sh", "-c", commands], program=NESTED,
               timeout=timeout + 20)


@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="there is no /dev/kvm that this user may open")
def test_small_guests_run_on_this_host():
    result = run([], program=KVM_TEST, timeout=60)
    assert result.status == 0, result.describe()
    assert "SKIPPED" not in result.output, result.describe()


@needs_qemu
def test_small_guests_run_on_real_kvm_and_move_between_the_engines():
    commands = f"{KVM_TEST} && {VMM_TEST} --gtest_filter='EngineMove.*'"
    result = nested(commands, files=[KVM_TEST, VMM_TEST], timeout=400)
    assert result.status == 0, result.describe()
    assert "SKIPPED" not in result.output, result.describe()
    assert "so hardware carries it" in result.output, result.describe()


# Paging, protection, exceptions and system instructions on real KVM, by the text that the interpreter is tested with. What the
# emulated processor does otherwise than the manual is listed with its reason, and the list must hold to the last case.
@needs_qemu
def test_system_instructions_and_exceptions_on_real_kvm():
    command = [CASES, "--engine", "kvm", "--tss-not-busy", "--known", KNOWN_OF_TCG, *SYSTEM_CASES]
    result = nested(shlex.join(map(str, command)), files=[CASES, KNOWN_OF_TCG, *SYSTEM_CASES], timeout=600)
    assert result.status == 0, result.describe()
    tally = re.search(r"^(\d+) cases, 0 failed, (\d+) known to differ, (\d+) not run, 0 passed though listed", result.output, re.M)
    assert tally, result.describe()
    run_count, known, not_run = map(int, tally.groups())
    assert run_count - known > 2900 and not_run < 30, result.describe()


# x86-64-v2, because QEMU 7.2's TCG does not let a nested hypervisor intercept XSETBV: with AVX, the guest would set the XCR0 of
# the host and find that its own has not changed.
@needs_qemu
@pytest.mark.parametrize("engine", ["kvm", "auto"])
def test_debian_with_two_vcpus_boots_on_real_kvm(engine):
    arguments = debian_arguments(cpus=2, engine=engine, memory="512M", extra=["--cpu-model", "x86-64-v2"])
    result = nested(shlex.join(map(str, [BULKHEAD, *arguments])), files=[BULKHEAD, GUESTS / "cloud/vmlinuz", GUESTS / "cloud/initrd"],
                    timeout=900)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert result.field("cpus") == "2", result.describe()
    assert result.field("clocksource") == "kvm-clock", result.describe()
    assert "engine soft" not in result.output, result.describe()
    assert result.status == 0, result.describe()
    assert not result.complaints(), result.describe()


# What the guest writes to a queue's doorbell never comes to the board here: the kernel signals the queue's eventfd.
@needs_qemu
def test_a_disk_works_by_doorbells_in_the_kernel():
    disk = GUESTS / "disk.img"  # packed into the nested machine, so a copy is written to
    arguments = debian_arguments(task="demo", engine="kvm", memory="512M",
                                 extra=["--cpu-model", "x86-64-v2", "--disk", disk, "--stats"])
    result = nested(shlex.join(map(str, [BULKHEAD, *arguments])), files=[BULKHEAD, GUESTS / "cloud/vmlinuz", GUESTS / "cloud/initrd", disk],
                    timeout=900)
    assert "disk: read back what was written" in result.output, result.describe()
    assert re.search(r"doorbells in the kernel +[1-9]", result.output), result.describe()
    assert result.status == 0, result.describe()


def test_auto_says_why_it_took_its_engine():
    result = run(debian_arguments(engine="auto"), timeout=240)
    assert "USER SPACE REACHED" in result.output, result.describe()
    assert "engine" in result.errors and ("kvm" in result.errors), result.describe()
