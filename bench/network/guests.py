"""Guests that send each other traffic, under Bulkhead and under QEMU's TCG: what they are made of, how they are started, what they said."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUEST = ROOT / ".cache/guests/cloud"
BULKHEAD = pathlib.Path(os.environ.get("BULKHEAD", ROOT / "build/release/src/apps/bulkhead"))
QEMU = shutil.which("qemu-system-x86_64")
PATIENCE = 300
PLANT = """
kind: Plant
metadata: {name: bench}
spec:
  switches: {plant: {network: 10.9.0.0/24%s}}
  zones: {floor: {}}
  machines:
    one: {kernel: k, nics: [{zone: floor, address: 10.9.0.1, mac: "02:00:00:00:00:01"}]}
    two: {kernel: k, nics: [{zone: floor, address: 10.9.0.2, mac: "02:00:00:00:00:02"}]}
"""
FIGURE = re.compile(r"^(sent|received): (\d+) right of (\d+) bytes in (\d+) ns\r?$", re.MULTILINE)
IPERF = re.compile(r"^\[ *\d+\] +0\.00-[0-9.]+ +sec +[0-9.]+ \w+ +([0-9.]+) Mbits/sec +receiver\r?$", re.MULTILINE)
PING = re.compile(r"^\d+ bytes from .* time=([0-9.]+) ms\r?$", re.MULTILINE)


def copy_program(name, root):
    """One of this host's programs with the libraries it is linked with, at the same places in the guest."""
    path = shutil.which(name)
    if not path:
        raise RuntimeError(f"{name} is not installed: tools/dev setup")
    said = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
    for library in re.findall(r"(?:=> |^\s+)(/\S+) \(", said, re.MULTILINE):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    shutil.copy(path, root / "bin" / name)


def build(folder, base=GUEST / "initrd", programs=()):
    """The traffic program and an initrd with it and other programs behind the base, in the folder; returns both."""
    program, initrd = folder / "traffic", folder / "initrd"
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-static", "-Wall", "-Wextra", "-o", program, HERE / "traffic.c"], check=True)
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy(program, root / "bin/traffic")
    for name in programs:
        copy_program(name, root)
    shutil.copy(HERE / "init", root / "traffic-init")
    os.chmod(root / "traffic-init", 0o755)
    names = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
    archive = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], input=names.encode(), cwd=root, capture_output=True, check=True)
    before = base.read_bytes()
    initrd.write_bytes(before + bytes(-len(before) % 4) + archive.stdout)
    return program, initrd


class Machine:
    """A guest that runs; what it prints is read as it comes."""

    def __init__(self, arguments):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(word) for word in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.errors)
        self.output = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        while piece := os.read(self.process.stdout.fileno(), 4096):
            self.output += piece.decode(errors="replace")

    def wait_for(self, text):
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            if time.monotonic() > deadline or (self.process.poll() is not None and not self.reader.is_alive() and text not in self.output):
                raise RuntimeError(f"the guest never said '{text}'\n{self.said()}")
            time.sleep(0.05)

    def wait(self):
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
        self.reader.join(10)
        return self.output

    def kill(self):
        self.process.kill()
        self.process.wait()

    def said(self):
        self.errors.seek(0)
        return self.output[-3000:] + self.errors.read().decode(errors="replace")[-2000:]


def command_line(**words):
    return "console=ttyS0 panic=-1 quiet rdinit=/traffic-init " + " ".join(f"net.{name}={value}" for name, value in words.items())


def bulkhead(initrd, nic, cpus=1, extra=(), kernel=GUEST / "vmlinuz", **words):
    return Machine([BULKHEAD, "run", "--engine", "soft", "--cpus", cpus, "--memory", "256M", "--kernel", kernel, "--initrd", initrd,
                    "--cmdline", command_line(**words), "--nic", nic, *extra])


def qemu(initrd, nets, mac, **words):
    return Machine([QEMU, "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256", "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
                    "-kernel", GUEST / "vmlinuz", "-initrd", initrd, "-append", command_line(**words),
                    *(word for net in nets for word in ("-netdev", net)), "-device", f"virtio-net-pci,netdev=card,mac={mac}"])


class Switch:
    """Bulkhead's switch process with two ports, one and two."""

    def __init__(self, folder, capture=None):
        plant = folder / "plant.yaml"
        plant.write_text(PLANT % (f", capture: {capture}" if capture else ""))
        self.folder = folder / "s"
        self.process = subprocess.Popen([str(BULKHEAD), "switch", str(plant), "--directory", str(self.folder)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / "two.0.sock").exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the switch did not start")
            time.sleep(0.02)

    def nic(self, name, more=""):
        return f"switch={self.folder},port={name}.0,mac=02:00:00:00:00:0{1 if name == 'one' else 2}{more}"

    def stop(self):
        self.process.terminate()
        self.process.wait()


def figures(said):
    """Bytes a second in each direction, and whether every byte was right."""
    found = {"sent": [], "received": []}
    for name, right, of, ns in FIGURE.findall(said):
        if right != of:
            raise RuntimeError(f"only {right} of {of} bytes were right")
        found[name].append(int(of) * 1e9 / int(ns))
    return found
