"""Two engines run one guest in step, compared in every register as they go and in memory and devices now and then."""
import os
import pathlib

import pytest

from bulkhead import BULKHEAD, GUESTS, SLOW, run

LOCKSTEP = pathlib.Path(os.environ.get("LOCKSTEP", BULKHEAD.parents[2] / "tests/lockstep/lockstep"))


def lockstep(flavour="cloud", task="boot", cpus=1, extra_command_line="", extra=(), timeout=300):
    folder = GUESTS / flavour
    return run(["--kernel", folder / "vmlinuz", "--initrd", folder / "initrd", "--cpus", cpus,
                "--cmdline", f"console=ttyS0 panic=-1 task={task} {extra_command_line}".strip(), *extra],
               program=LOCKSTEP, timeout=timeout)


@pytest.mark.parametrize("seed", range(1, 21 if SLOW else 3))
def test_a_debian_boot_is_the_same(seed, tmp_path):
    """Half a second of guest time; with BULKHEAD_SLOW=1 twenty whole boots."""
    output = tmp_path / "com1"
    until = [] if SLOW else ["--until", 500]
    result = lockstep(cpus=2 - seed % 2, extra=["--seed", seed, "--output", output, *until], timeout=900)
    assert result.status == 0, result.describe()
    assert "where the guest ended: no difference" in result.output if SLOW else ": no difference" in result.output
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
    result = lockstep(task="selftest", cpus=2, extra_command_line="selftest.args=--thread-seconds,1", extra=until, timeout=1800)
    assert result.status == 0 and ": no difference" in result.output, result.describe()
