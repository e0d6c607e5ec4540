"""Starts Bulkhead VMs for the system tests: what they print, how they end, how long they took."""
import os
import pathlib
import re
import resource
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUESTS = ROOT / ".cache/guests"
BULKHEAD = pathlib.Path(os.environ.get("BULKHEAD", ROOT / "build/release/src/apps/bulkhead"))
SLOW = bool(os.environ.get("BULKHEAD_SLOW"))

COMPLAINT = re.compile(r"WARNING:|BUG:|Oops|Call Trace|rcu.*stall|unable to handle|general protection|lockup|Kernel panic")


class Run:
    """One VM that has ended."""

    def __init__(self, status, output, errors, seconds, peak_kib):
        self.status = status
        self.output = output
        self.errors = errors
        self.seconds = seconds
        self.peak_kib = peak_kib

    def field(self, name):
        """The value behind 'name: ' in what the guest printed."""
        match = re.search(rf"^{name}: (.*?)\r?$", self.output, re.MULTILINE)
        return match.group(1) if match else None

    def complaints(self):
        return [line for line in self.output.splitlines() if COMPLAINT.search(line)]

    def describe(self):
        return f"status {self.status} after {self.seconds:.1f} s\n--- errors\n{self.errors[-3000:]}\n--- output\n{self.output[-6000:]}"


def run(arguments, timeout=120, program=None, stdin=subprocess.DEVNULL, before=None):
    """Runs a program (bulkhead when not given) to its end; status None means that it was killed at the time limit. before: called in its
    process before it begins."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([str(program or BULKHEAD), *map(str, arguments)], stdin=stdin, stdout=out, stderr=err,
                                   preexec_fn=before)
        try:
            _, wait_status, usage = wait4(process, timeout)
            status = os.waitstatus_to_exitcode(wait_status)
        except TimeoutError:
            process.kill()
            _, _, usage = os.wait4(process.pid, 0)
            status = None
        process.returncode = status if status is not None else -9
        seconds = time.monotonic() - started
        out.seek(0)
        err.seek(0)
        return Run(status, out.read().decode(errors="replace"), err.read().decode(errors="replace"), seconds, usage.ru_maxrss)


def wait4(process, timeout):
    deadline = time.monotonic() + timeout
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            return pid, status, usage
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)


def debian_arguments(flavour="cloud", task="boot", cpus=1, engine="soft", memory="512M", extra_command_line="", extra=()):
    folder = GUESTS / flavour
    return ["run", "--engine", engine, "--cpus", cpus, "--memory", memory, "--kernel", folder / "vmlinuz",
            "--initrd", folder / "initrd", "--cmdline", f"console=ttyS0 panic=-1 task={task} {extra_command_line}".strip(), *extra]


def disks_arguments(labels, *extra):
    """A guest with the drivers of all buses, which writes to the file system of each label, reads it back and says whether its kernel complained."""
    folder = GUESTS / "amd64"
    words = f"console=ttyS0 panic=-1 task=disks disks.labels={','.join(labels)}" + (" disks.cd=1" if "--cdrom" in extra else "")
    return ["run", "--engine", "soft", "--memory", "512M", "--kernel", folder / "vmlinuz", "--initrd", folder / "disks-initrd",
            "--cmdline", words, *extra]


def run_debian(timeout=180, **options):
    return run(debian_arguments(**options), timeout=timeout)


def wait_until_listening(path, limit=60):
    """Until somebody listens at the Unix socket, without connecting to it."""
    accepts_connections = 1 << 16
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        for line in pathlib.Path("/proc/net/unix").read_text().splitlines()[1:]:
            words = line.split()
            if words[-1] == str(path) and int(words[3], 16) & accepts_connections:
                return
        time.sleep(0.02)
    raise AssertionError(f"nobody listens at {path} after {limit} s")
