"""The long form of the power cuts (src/block, crash_test.cc): 100,000 states that a power cut may leave of each format."""
import os
import subprocess

import pytest

from bulkhead import ROOT, SLOW

BLOCK_TEST = ROOT / "build/release/src/block_test"
STATES = 100_000

pytestmark = pytest.mark.skipif(not SLOW, reason="minutes each (tools/dev slow -k power_cuts); 5,000 states are in the unit tests")


def formats():
    if not BLOCK_TEST.exists():
        return ["nothing: block_test is not built"]
    listed = subprocess.run([BLOCK_TEST, "--gtest_list_tests", "--gtest_filter=Formats/PowerCut.*"], capture_output=True, text=True, check=True).stdout
    return [line.split("/")[1].split()[0] for line in listed.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize("name", formats() if SLOW else ["each format"])
def test_power_cuts_lose_nothing_that_was_flushed(name):
    done = subprocess.run([BLOCK_TEST, f"--gtest_filter=Formats/PowerCut.*/{name}"], env={**os.environ, "BULKHEAD_CRASH_STATES": str(STATES)},
                          capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0 and "[  PASSED  ] 1 test" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
