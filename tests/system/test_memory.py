"""What the process holds besides guest RAM."""
import subprocess
import sys
import time

from bulkhead import BULKHEAD, ROOT, debian_arguments, wait_until_listening

sys.path.insert(0, str(ROOT / "bench/engine"))
from sides import resident_without_ram_kib  # noqa: E402


def test_a_guest_that_has_not_begun_costs_eight_mebibytes(tmp_path):
    socket = tmp_path / "gdb"
    process = subprocess.Popen([str(word) for word in (BULKHEAD, *debian_arguments(), "--gdb", socket)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_listening(socket)
        # Its threads come to rest, and the pages that only the start needed go back to the host.
        deadline = time.monotonic() + 10
        while resident_without_ram_kib(process.pid) > 8 << 10 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert resident_without_ram_kib(process.pid) <= 8 << 10
    finally:
        process.kill()
        process.wait()
