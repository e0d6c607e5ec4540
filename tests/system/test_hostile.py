"""A guest that writes random values to every port, device register, MSR and ring, or rewrites its own code and tables, ends nothing
but itself."""
import collections
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, ROOT, SLOW, Run, run

SANITIZED = pathlib.Path(os.environ.get("BULKHEAD_SANITIZED", ROOT / "build/fuzz/src/apps/bulkhead"))
TOTAL_SECONDS = 600 if SLOW else 45
# Of each form of the guest that rewrites itself.
REWRITER_SECONDS = int(os.environ.get("BULKHEAD_HOSTILE_SECONDS", 1800 if SLOW else 20))
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


def hash_of_files(folder):
    """Names, sizes, times and bytes of everything in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path} {status.st_mode} {status.st_size} {status.st_mtime_ns}".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def rewriter(program, seconds, disk, extra=()):
    return run(["--kernel", GUESTS / "long/rewriter", "--seconds", seconds, "--disk", disk, *extra],
               program=program, timeout=seconds + 300)


@pytest.mark.parametrize("jit", ["on", "off"])
def test_a_guest_that_rewrites_itself_changes_nothing_else(jit, tmp_path):
    """Code, page tables and descriptor tables at random: translated code in release, the interpreter under sanitizers."""
    program = BULKHEAD.parents[2] / "tests/hostile/hostile" if jit == "on" else SANITIZED.parents[2] / "tests/hostile/hostile"
    if not program.exists():
        pytest.skip(f"{program} is not built (tools/dev build {'release' if jit == 'on' else 'fuzz'})")
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    host = tmp_path / "host"
    for i in range(20):
        (host / str(i)).mkdir(parents=True)
        (host / str(i) / "file").write_bytes(hashlib.sha256(bytes([i])).digest() * 1000)
    before = hash_of_files(host)
    # A life may be a quiet one: more of them, until it was a fight with code rewritten and faults taken.
    fought = collections.Counter()
    for seed in range(1, 6):
        result = rewriter(program, REWRITER_SECONDS, disk, ["--jit", jit, "--cpus", 2, "--seed", seed])
        assert result.status == 0, result.describe()
        assert "nothing outside of the guest has changed" in result.output, result.describe()
        for sign in SANITIZER_SIGNS:
            assert sign not in result.errors, result.describe()
        assert hash_of_files(host) == before
        assert disk.stat().st_size == 1 << 20
        fought.update({name: int(value) for name, value in re.findall(r"^  (\S+) +(\d+)$", result.output, re.MULTILINE)})
        print(result.output)
        if fought["exceptions"] > 100 and fought["blocks.code_writes"] > 100:
            break
    else:
        pytest.fail(f"no fight: {fought}")
    assert (fought["jit.entries"] > 100) == (jit == "on"), fought


@pytest.mark.parametrize("canary", ["below guest RAM", "above guest RAM", "heap block 200", "static memory", "initialised data"])
def test_a_changed_canary_is_seen(canary, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    result = rewriter(BULKHEAD.parents[2] / "tests/hostile/hostile", 2, disk, ["--life", 1, "--falsify", canary])
    assert result.status == 1 and f"CHANGED {canary}: byte" in result.output, result.describe()
