"""The guest self-test (tests/guest/selftest): what a program expects of a PC, checked inside the guest."""
import pytest

from bulkhead import run_debian

# Measures time, so nothing else may run beside it.
pytestmark = pytest.mark.alone


def test_everything_holds_inside_the_guest():
    result = run_debian(task="selftest", cpus=4, timeout=480, extra_command_line="selftest.args=--thread-seconds,60")
    assert "SELFTEST STATUS 0" in result.output, result.describe()
    assert not result.complaints(), result.describe()
    assert result.status == 0, result.describe()
