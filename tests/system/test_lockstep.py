"""Two engines run one guest in step, compared in every register as they go and in memory and devices now and then."""
import os
import pathlib
import re

import pytest

from bulkhead import BULKHEAD, GUESTS, SLOW, run

LOCKSTEP = pathlib.Path(os.environ.get("LOCKSTEP", BULKHEAD.parents[2] / "tests/lockstep/lockstep"))


def lockstep(flavour="cloud", task="boot", cpus=1, extra_command_line="", extra=(), timeout=300):
    folder = GUESTS / flavour
    return run(["--kernel", folder / "vmlinuz", "--initrd", folder / "initrd", "--cpus", cpus,
                "--cmdline", f"console=ttyS0 panic=-1 task={task} {extra_command_line}".strip(), *extra],
               program=LOCKSTEP, timeout=timeout)


# Twenty ways to boot: every kernel with 1, 2 and 4 vCPUs, and what makes kernels take other ways: no randomised addresses, page tables
# switched at each system call, no PCIDs, older models of CPUs, other interrupt controllers and clocks, large pages everywhere.
BOOTS = [("cloud", 1, "", ()),
         ("cloud", 2, "", ()),
         ("amd64", 1, "", ()),
         ("rt", 2, "", ()),
         ("cloud", 4, "nokaslr", ()),
         ("amd64", 2, "pti=on", ()),
         ("rt", 1, "", ()),
         ("amd64", 4, "nokaslr", ()),
         ("rt", 4, "", ()),
         ("cloud", 1, "nopcid noinvpcid", ()),
         ("cloud", 1, "", ("--cpu-model", "x86-64-v1")),
         ("cloud", 2, "", ("--cpu-model", "x86-64-v2")),
         ("cloud", 1, "pti=on mitigations=auto", ()),
         ("cloud", 1, "nosmap nosmep nofsgsbase", ()),
         ("cloud", 1, "hpet=disable clocksource=acpi_pm", ()),
         ("cloud", 2, "nox2apic noapic", ()),
         ("cloud", 1, "transparent_hugepage=always", ("--memory", "256M")),
         ("cloud", 1, "nogbpages", ("--memory", "1G")),
         ("cloud", 1, "", ("--boot-protocol", "linux32")),
         ("amd64", 1, "pti=on nokaslr", ("--cpu-model", "x86-64-v2"))]


@pytest.mark.parametrize("number", range(1, (len(BOOTS) if SLOW else 2) + 1))
def test_a_debian_boot_is_the_same(number, tmp_path):
    """Half a second of guest time; with BULKHEAD_SLOW=1 twenty whole boots, each with a seed of its own."""
    flavour, cpus, command_line, extra = BOOTS[number - 1]
    output = tmp_path / "com1"
    until = [] if SLOW else ["--until", 500]
    result = lockstep(flavour, cpus=cpus, extra_command_line=command_line,
                      extra=["--seed", number, "--output", output, *extra, *until], timeout=3600)
    print(f"{flavour} {cpus} vCPUs {command_line} {' '.join(extra)}: {result.seconds:.0f} s\n{result.output}")
    assert result.status == 0, result.describe()
    assert "where the guest ended: no difference" in result.output if SLOW else ": no difference" in result.output
    assert int(re.search(r"^(\d+) blocks translated", result.output, re.MULTILINE)[1]) > 1000
    assert ("USER SPACE REACHED" if SLOW else "Linux version") in output.read_text(errors="replace")


def test_every_instruction_of_a_part_is_the_same():
    result = lockstep(extra=["--until", 1, "--every", 1, "--memory-every", 100000])
    assert result.status == 0, result.describe()
    assert "1000000 comparisons" in result.output


def test_a_falsified_register_is_found_where_it_was_falsified():
    result = lockstep(extra=["--falsify-at", 1234567, "--every", 777])
    assert result.status == 1, result.describe()
    assert "vCPU 0 r15: expected" in result.output
    assert "equal at guest time 1234566 ns, different at 1234567 ns" in result.output, result.describe()


def test_the_selftest_is_the_same():
    """Its beginning; with BULKHEAD_SLOW=1 all of it."""
    until = [] if SLOW else ["--until", 1500]
    result = lockstep(task="selftest", cpus=2, extra_command_line="selftest.args=--thread-seconds,1", extra=until, timeout=3600)
    print(f"self-test: {result.seconds:.0f} s\n{result.output}")
    assert result.status == 0 and ": no difference" in result.output, result.describe()
