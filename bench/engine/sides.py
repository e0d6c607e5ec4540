"""Runs a list of workloads on one side: Bulkhead, QEMU's TCG, or this host itself.

A side answers with what the guest said of itself, when the host saw each line, how long the process took and what memory it held.
"""
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import threading
import time

import guest

EVERY_BULKHEAD = []  # options of all its runs
BULKHEAD = pathlib.Path(os.environ.get("BULKHEAD", guest.ROOT / "build/release/src/apps/bulkhead"))
QEMU = shutil.which("qemu-system-x86_64")
RAM_MIB = 512

SPEED = re.compile(r"\+F2?:\d+:[^:]*:([0-9.]+)")


@dataclasses.dataclass
class Measurement:
    checksum: str
    guest_ns: int
    host_ns: int  # between the two lines on the console, by the host's clock
    cpu_ns: int  # CPU time that the side's process took for it: what other work on the machine disturbs least


@dataclasses.dataclass
class Result:
    side: str
    measurements: dict
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory_kib: int = 0  # resident without guest RAM, when the guest had finished
    error: str = ""
    complaints: dict = dataclasses.field(default_factory=dict)  # what a workload that gave no figure said


class Failed(Exception):
    """A side that could not be run at all."""


def resident_without_ram_kib(pid):
    """Resident memory of a process without guest RAM. A page of a memfd that is mapped twice counts once, so the share is taken there."""
    total, name, size, values = 0, "", 0, {}

    def counted():
        is_ram = "guest-ram" in name or (not name and size >= RAM_MIB * 1024)
        return 0 if is_ram or not values else values.get("Pss" if name.startswith("/memfd:") else "Rss", 0)

    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            header = re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+\s*(.*)$", line)
            if header:
                total += counted()
                name, size, values = header.group(3), (int(header.group(2), 16) - int(header.group(1), 16)) // 1024, {}
            elif line.startswith(("Rss:", "Pss:")):
                values[line[:3]] = int(line.split()[1])
    return total + counted()


def cpu_time_ns(pid):
    """Of all threads of a process, by its CPU clock (clock_getcpuclockid), which is exact to the moment."""
    try:
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return 0  # ended already


def watch(side, arguments, timeout, environment=None, affinity=None):
    """Runs a process to its end and reads its lines as they come."""
    started = time.monotonic()
    pin = (lambda: os.sched_setaffinity(0, affinity)) if affinity else None
    process = subprocess.Popen([str(a) for a in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=environment, preexec_fn=pin, text=True, errors="replace", start_new_session=True)
    expired = threading.Event()
    timer = threading.Timer(timeout, lambda: (expired.set(), os.killpg(process.pid, signal.SIGKILL)))
    timer.start()
    complaints = []
    errors = threading.Thread(target=lambda: complaints.extend(process.stderr), daemon=True)
    errors.start()
    result, begun, last_lines = Result(side, {}), {}, []
    try:
        for line in process.stdout:
            now = time.monotonic_ns()
            line = line.strip()
            last_lines = last_lines[-20:] + [line]
            if match := re.search(r"begin: (\w+)$", line):
                begun[match.group(1)] = now, cpu_time_ns(process.pid)
            elif match := re.search(r"bench: (\w+) ([0-9a-f]{16}) (\d+) (\d+)$", line):
                name = match.group(1)
                cpu_now = cpu_time_ns(process.pid)
                then, cpu_then = begun.get(name, (now, cpu_now))
                cpu_ns = int(match.group(4)) if side == "native" else cpu_now - cpu_then
                result.measurements[name] = Measurement(match.group(2), int(match.group(3)), now - then, cpu_ns)
            elif match := re.search(r"speed: (\w+) (.*)$", line):
                take_speed(result, match.group(1), match.group(2))
            elif match := re.search(r"bench: (\w+): (.*)$", line):
                result.complaints[match.group(1)] = match.group(2)
            elif line == "finished":
                try:
                    result.memory_kib = resident_without_ram_kib(process.pid)
                except OSError:
                    pass  # ended already
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status = os.waitstatus_to_exitcode(status)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        timer.cancel()
    errors.join(5)
    result.seconds = time.monotonic() - started
    result.cpu_seconds = usage.ru_utime + usage.ru_stime
    if expired.is_set():
        result.error = f"{side}: not finished after {timeout} s; last lines: " + " | ".join(last_lines[-6:])
    elif status != 0:
        result.error = f"{side}: exit status {status}: " + "".join(complaints)[-800:] + " | ".join(last_lines[-6:])
    return result


def take_speed(result, name, text):
    """openssl speed runs for a fixed time: its figure becomes the time of 1000 operations or of 1 GB, and the checksum says nothing."""
    match = SPEED.search(text)
    if not match or name not in result.measurements:
        return
    value = float(match.group(1))
    seconds = (1000 if text.startswith("+F2") else 1e9) / value if value else 0
    result.measurements[name] = Measurement("-", *[int(seconds * 1e9)] * 3)


def command_line(names, programs, divisor):
    return (f"console=ttyS0 panic=-1 quiet loglevel=1 bench.divisor={divisor}" + (f" bench.list={','.join(names)}" if names else "") +
            (f" bench.programs={','.join(programs)}" if programs else ""))


def run_bulkhead(names, programs=(), divisor=1, cpus=1, timeout=300, extra=()):
    arguments = [BULKHEAD, "run", "--engine", "soft", "--cpus", cpus, "--memory", f"{RAM_MIB}M", "--kernel", guest.GUESTS / guest.FLAVOUR / "vmlinuz",
                 "--initrd", guest.INITRD, "--cmdline", command_line(names, programs, divisor), *EVERY_BULKHEAD, *extra]
    if programs:
        arguments += ["--disk", f"{guest.DISK},ro"]
    return watch("bulkhead", arguments, timeout)


def run_tcg(names, programs=(), divisor=1, cpus=1, timeout=300):
    arguments = [QEMU, "-accel", "tcg", "-cpu", "max", "-smp", cpus, "-m", RAM_MIB, "-display", "none", "-serial", "stdio", "-monitor", "none",
                 "-no-reboot", "-kernel", guest.GUESTS / guest.FLAVOUR / "vmlinuz", "-initrd", guest.INITRD, "-append",
                 command_line(names, programs, divisor)]
    if programs:
        arguments += ["-drive", f"file={guest.DISK},format=raw,if=virtio,readonly=on"]
    return watch("tcg", arguments, timeout)


def run_native(names, programs=(), divisor=1, cpus=1, timeout=300):
    """On as many CPUs of this host as the guests have, the last ones."""
    affinity = set(sorted(os.sched_getaffinity(0))[-cpus:])
    scratch = "/dev/shm" if os.path.isdir("/dev/shm") else "/tmp"
    environment = dict(os.environ, BENCH_SCRATCH=scratch, PATH=f"{guest.CACHE}:{os.environ['PATH']}")
    script = "; ".join([f"bench run {name} {divisor}" for name in names])
    if programs:
        data = guest.DISK_ROOT / "data"
        script += f"; dash {data}/programs.sh {data} {scratch} {' '.join(programs)}"
    return watch("native", ["sh", "-c", script.lstrip("; ")], timeout, environment, affinity)


SIDES = {"native": run_native, "bulkhead": run_bulkhead, "tcg": run_tcg}


def boot(side, flavour, timeout):
    """From the start of the process to its end: boot to user space and power off."""
    folder = guest.GUESTS / flavour
    line = "console=ttyS0 panic=-1 task=boot"
    if side == "bulkhead":
        arguments = [BULKHEAD, "run", "--engine", "soft", "--memory", f"{RAM_MIB}M", "--kernel", folder / "vmlinuz", "--initrd", folder / "initrd",
                     "--cmdline", line]
    else:
        arguments = [QEMU, "-accel", "tcg", "-cpu", "max", "-m", RAM_MIB, "-display", "none", "-serial", "stdio", "-monitor", "none",
                     "-no-reboot", "-kernel", folder / "vmlinuz", "-initrd", folder / "initrd", "-append", line]
    return watch(side, arguments, timeout)


def memory_before_start_kib():
    """Of a Bulkhead that waits for gdb in front of the guest's first instruction."""
    socket = guest.CACHE / "gdb.socket"
    socket.unlink(missing_ok=True)
    process = subprocess.Popen([str(a) for a in (BULKHEAD, "run", "--engine", "soft", "--kernel", guest.GUESTS / guest.FLAVOUR / "vmlinuz", "--initrd",
                                                 guest.INITRD, "--serial", "null", "--gdb", socket)], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.3)
        return resident_without_ram_kib(process.pid)
    except OSError:
        return 0
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)
