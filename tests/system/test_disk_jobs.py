"""Jobs on a disk while a guest writes records to it, says of each when it is safe, and reads older ones back: nothing is lost, neither when the
disk moves nor when the machine is killed in the middle of it."""
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import tempfile
import time

import pytest

from bulkhead import BULKHEAD, GUESTS, SLOW, debian_arguments, wait_until_listening

MIB = 1 << 20
PLACES, STEP = 1024, 65536
FORMATS = ["raw", "qcow2", "vhdx", "vmdk"]


class Machine:
    """A guest that writes records to a disk of 64 MiB."""

    def __init__(self, folder, image_format="raw", count=1_000_000, more="", secret=None):
        self.folder, self.control, self.log = folder, folder / "control", folder / "log"
        self.base = folder / f"base.{image_format}"
        self.encrypted = ["--encrypt", secret] if secret else []
        subprocess.run([BULKHEAD, "image", "create", "-f", image_format, self.base, "64M", *self.encrypted], check=True)
        disk = f"file={self.base},format={image_format}{more}" + (f",encrypt={secret}" if secret else "")
        self.arguments = debian_arguments(task="records", extra_command_line=f"quiet records.count={count}",
                                          extra=["--disk", disk, "--control", self.control])
        self.start()

    def start(self):
        """The same again, once it has ended."""
        self.control.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([str(BULKHEAD), *map(str, self.arguments)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until_listening(self.control)

    def said(self):
        return self.log.read_text(errors="replace")

    def safe(self):
        numbers = re.findall(r"safe: (\d+)\r?\n", self.said())
        return int(numbers[-1]) if numbers else 0

    def wait_for_records(self, more, limit=180):
        wanted, deadline = self.safe() + more, time.monotonic() + limit
        while self.safe() < wanted:
            assert time.monotonic() < deadline and self.process.poll() is None, self.said()[-3000:]
            time.sleep(0.02)

    def disk(self, *words, status=0):
        done = subprocess.run([BULKHEAD, "disk", words[0], *map(str, words[1:]), "--control", self.control], capture_output=True, text=True,
                              timeout=300, check=False)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.said()[-2000:]}"
        return done.stdout + done.stderr

    def storage(self):
        """Where the disk's bytes are by what the machine last said."""
        moves = re.findall(r"the disk is now '([^']+)', format=(\w+)", self.said())
        return moves[-1] if moves else (str(self.base), self.base.suffix[1:])

    def quit(self):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.control))
            control.sendall(b"quit\n")
            self.process.wait(timeout=60)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def machines():
    made = []
    with tempfile.TemporaryDirectory(prefix="jobs-") as folder:

        def start(**options):
            inner = pathlib.Path(folder) / str(len(made))
            inner.mkdir()
            made.append(Machine(inner, **options))
            return made[-1]

        yield start
        for machine in made:
            machine.kill()


def check_records(machine, safe):
    """What lies on the disk of a machine that is gone holds every record that the guest was told is safe."""
    assert "LOST" not in machine.said(), machine.said()[-3000:]
    path, image_format = machine.storage()
    raw = machine.folder / "found.raw"
    raw.unlink(missing_ok=True)
    if image_format != "raw":
        subprocess.run([BULKHEAD, "image", "check", "-f", image_format, path], check=False, stdout=subprocess.DEVNULL)
    subprocess.run([BULKHEAD, "image", "convert", "-f", image_format, *machine.encrypted, path, raw], check=True)
    assert raw.stat().st_size == 64 * MIB
    with raw.open("rb") as file:
        for number in range(max(1, safe - PLACES + 1), safe + 1):
            file.seek(number * 37 % PLACES * STEP)
            found = re.match(rb"record (\d+)\n", file.read(64))
            assert found, f"record {number} of {safe} in {path}"
            # Later ones may have come, not yet said to be safe.
            assert int(found.group(1)) in (number, number + PLACES), f"{found.group(1)} in the place of {number}"


def test_a_running_disk_moves_between_formats(machines):
    machine = machines()
    moves = 10 if SLOW else 4
    for number in range(moves):
        machine.wait_for_records(40)
        image_format = FORMATS[(number + 1) % len(FORMATS)]
        said = machine.disk("mirror", 0, machine.folder / f"moved{number}", "-f", image_format)
        assert f"moved{number}" in said and machine.storage() == (str(machine.folder / f"moved{number}"), image_format)
        # What it was before is not touched any more.
        if number > 0:
            os.unlink(machine.folder / f"moved{number - 1}")
    machine.wait_for_records(40)
    assert f"0 {machine.folder}/moved{moves - 1} (" in machine.disk("jobs")
    safe = machine.safe()
    machine.kill()
    check_records(machine, safe)


@pytest.mark.parametrize("image_format", ["raw", "qcow2", "vhdx"])
def test_snapshots_are_made_and_committed_while_the_guest_writes(machines, image_format):
    machine = machines(image_format=image_format)
    machine.wait_for_records(60)
    machine.disk("snapshot", 0, machine.folder / "one.qcow2")
    before = machine.base.read_bytes()
    machine.wait_for_records(60)
    machine.disk("snapshot", 0, machine.folder / "two.qcow2")
    machine.wait_for_records(60)
    assert machine.base.read_bytes() == before
    machine.disk("commit", 0)
    assert machine.storage()[0] == str(machine.folder / "one.qcow2")
    machine.wait_for_records(60)
    machine.disk("flatten", 0)
    assert machine.base.read_bytes() == before
    machine.base.unlink()
    machine.wait_for_records(60)
    safe = machine.safe()
    machine.kill()
    check_records(machine, safe)


def test_an_encrypted_disk_stays_encrypted_in_every_job(machines, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"of this test")
    machine = machines(image_format="luks", secret=secret)
    machine.wait_for_records(30)
    machine.disk("snapshot", 0, machine.folder / "one.qcow2")
    machine.wait_for_records(30)
    assert "are not encrypted" in machine.disk("mirror", 0, machine.folder / "open.raw", "-f", "raw", status=1)
    machine.disk("backup", 0, machine.folder / "backup.luks", "-f", "luks")
    machine.disk("mirror", 0, machine.folder / "moved.luks", "-f", "luks")
    machine.wait_for_records(30)
    machine.disk("snapshot", 0, machine.folder / "two.qcow2")
    machine.wait_for_records(30)
    machine.disk("commit", 0)
    assert machine.storage() == (str(machine.folder / "moved.luks"), "luks")
    machine.wait_for_records(10)
    safe = machine.safe()
    machine.kill()
    for file in filter(pathlib.Path.is_file, machine.folder.iterdir()):
        assert file.suffix in ("", ".luks", ".qcow2") and (file.name == "log" or b"record " not in file.read_bytes()), file
    assert secret.read_text() not in machine.said()
    check_records(machine, safe)


def test_the_guest_ends_with_everything_where_the_disk_is_last(machines):
    machine = machines(count=400)
    machine.wait_for_records(20)
    machine.disk("mirror", 0, machine.folder / "moved.qcow2")
    assert machine.process.wait(timeout=300) == 0, machine.said()[-3000:]
    assert "RECORDS DONE" in machine.said()
    check_records(machine, 400)


def test_a_job_is_paused_hurried_and_cancelled(machines):
    machine = machines()
    machine.wait_for_records(200)
    machine.disk("mirror", 0, machine.folder / "moved.qcow2", "--speed", "4K", "--detach")
    assert "mirror running" in machine.disk("jobs")
    stats = json.loads(machine.disk("stats", "-o", "json"))
    assert len(stats) == 1 and stats[0]["file"] == str(machine.base) and stats[0]["errors"] == 0
    for operation in ["read", "write", "flush"]:
        told = stats[0][operation]
        assert told["requests"] > 0 and 0 < told["p50_us"] <= told["p99_us"] <= told["p99.9_us"] <= told["max_us"]
        assert 0 < sum(one["count"] for one in told["histogram"]) <= told["requests"]
    assert "p99.9" in machine.disk("stats")
    assert "there is a job already: mirror" in machine.disk("commit", 0, status=1)
    machine.disk("pause", 0)
    assert "mirror paused" in machine.disk("jobs")
    machine.disk("resume", 0)
    machine.disk("cancel", 0)
    deadline = time.monotonic() + 60
    while "mirror cancelled" not in machine.disk("jobs"):
        assert time.monotonic() < deadline
    assert not (machine.folder / "moved.qcow2").exists()
    machine.disk("mirror", 0, machine.folder / "moved.qcow2", "--speed", "4K", "--detach")
    machine.disk("speed", 0, "1G")
    while "mirror done" not in machine.disk("jobs"):
        assert time.monotonic() < deadline + 60
    assert machine.storage() == (str(machine.folder / "moved.qcow2"), "qcow2")
    assert "there is no job" in machine.disk("cancel", 0, status=1)
    machine.wait_for_records(20)
    safe = machine.safe()
    machine.kill()
    check_records(machine, safe)


def test_what_cannot_be_is_refused_and_changes_nothing(machines):
    machine = machines(image_format="qcow2")
    machine.wait_for_records(5)
    (machine.folder / "there").write_bytes(b"something")
    (machine.folder / "below").mkdir()
    for words, reason in [(("mirror", 0, machine.folder / "there"), "exists"),
                          (("mirror", 0, "/nowhere/at/all"), "No such file"),
                          (("mirror", 0, machine.folder / "new", "-f", "floppy"), "unknown"),
                          (("mirror", 1, machine.folder / "new"), "disk '1'"),
                          (("snapshot", 0, machine.folder / "below/new"), "does not lie in the folder"),
                          (("snapshot", 0, machine.folder / "new", "-f", "raw"), "backing"),
                          (("backup", 0, machine.folder / "new", "--changed"), "no earlier backup"),
                          (("commit", 0), "has no backing file"),
                          (("flatten", 0), "has no backing file")]:
        assert reason in machine.disk(*words, status=1), words
        assert not (machine.folder / "new").exists()
    machine.wait_for_records(5)
    assert machine.storage() == (str(machine.base), "qcow2")
    assert (machine.folder / "there").read_bytes() == b"something"


def test_backups_of_one_moment_and_of_what_has_changed_since(machines):
    machine = machines()
    machine.wait_for_records(100)
    for number, words in enumerate([(), ("--changed",), ("--changed",)]):
        before = machine.safe()
        said = machine.disk("backup", 0, machine.folder / f"backup{number}", *words, "--speed", "40M")
        after = machine.safe()
        assert f"the backup is '{machine.folder}/backup{number}', format=qcow2" in said
        # It holds what was safe when it began, and nothing that was begun after its end.
        raw = machine.folder / "backup.raw"
        raw.unlink(missing_ok=True)
        subprocess.run([BULKHEAD, "image", "convert", "-f", "qcow2", machine.folder / f"backup{number}", raw], check=True)
        contents = raw.read_bytes()
        found = [int(match.group(1)) for match in re.finditer(rb"record (\d+)\n", contents)]
        newest = max(found)
        assert before <= newest <= after + 1
        # One moment: up to the newest there is no gap.
        assert sorted(found) == list(range(max(1, newest - PLACES + 1), newest + 1))
        machine.wait_for_records(30)
    sizes = [(machine.folder / f"backup{number}").stat().st_blocks for number in range(3)]
    assert not list(machine.folder.glob("*.aside"))
    assert machine.storage() == (str(machine.base), "raw") and sizes[0] > 0
    safe = machine.safe()
    machine.kill()
    check_records(machine, safe)


def test_backups_of_changes_go_on_after_a_restart_and_not_after_a_kill(machines):
    machine = machines(image_format="qcow2")
    machine.wait_for_records(40)
    machine.disk("backup", 0, machine.folder / "backup0")
    for number in (1, 2):
        machine.wait_for_records(20)
        machine.quit()
        shown = subprocess.run([BULKHEAD, "image", "bitmap", machine.base, "list"], capture_output=True, text=True, check=True).stdout
        assert shown == f"65536 automatic known backup qcow2 {machine.folder}/backup{number - 1}\n"
        machine.start()
        machine.wait_for_records(20)
        subprocess.run([BULKHEAD, "pause", "--control", machine.control], check=True)
        machine.disk("backup", 0, machine.folder / f"backup{number}", "--changed")
        # While the machine is paused, the disk and its backup are the same.
        machine.quit()
        subprocess.run([BULKHEAD, "image", "compare", "-f", "qcow2", "-F", "qcow2", machine.base, machine.folder / f"backup{number}"], check=True)
        machine.start()
    machine.wait_for_records(20)
    machine.kill()
    machine.start()
    machine.wait_for_records(5)
    assert "is not known, because the disk's image was not closed" in machine.disk("backup", 0, machine.folder / "backup3", "--changed", status=1)
    machine.disk("backup", 0, machine.folder / "backup4")
    machine.disk("backup", 0, machine.folder / "backup5", "--changed")
    machine.kill()


@pytest.mark.parametrize("care", [(), ("--unsafe",)])
def test_a_disk_is_put_on_another_backing_file_while_the_guest_writes(machines, care):
    machine = machines()
    machine.wait_for_records(40)
    machine.disk("snapshot", 0, machine.folder / "top.qcow2")
    machine.wait_for_records(20)
    other = machine.folder / "other.qcow2"
    # The same for the unsafe way, and something else for the other.
    subprocess.run([BULKHEAD, "image", "convert", "-f", "raw", machine.base, other] if care else [BULKHEAD, "image", "create", other, "32M"], check=True)
    assert f"is now '{other}', format=qcow2" in machine.disk("rebase", 0, other, *care)
    machine.base.unlink()
    machine.wait_for_records(20)
    assert machine.storage() == (str(machine.folder / "top.qcow2"), "qcow2")
    safe = machine.safe()
    machine.kill()
    check_records(machine, safe)


def test_disks_on_every_bus_grow_under_their_guest(tmp_path):
    control, log = tmp_path / "control", tmp_path / "log"
    before, after = 48 * MIB, 112 * MIB
    disks = [("qcow2", "virtio"), ("vhdx", "nvme"), ("raw", "sata"), ("vmdk", "virtio"), ("luks", "virtio")]
    secret, arguments, encryption = tmp_path / "secret", [], {}
    secret.write_text("of the fourth\n")
    secret.chmod(0o600)
    for number, (image_format, bus) in enumerate(disks):
        disk = tmp_path / f"disk{number}.{image_format}"
        encryption[number] = ["--encrypt", secret] if image_format == "luks" else []
        subprocess.run([BULKHEAD, "image", "create", "-f", image_format, *encryption[number], disk, str(before)], check=True)
        arguments += ["--disk", f"file={disk},format={image_format},bus={bus}" + (f",encrypt={secret}" if encryption[number] else "")]
    folder = GUESTS / "amd64"
    command = [BULKHEAD, "run", "--engine", "soft", "--memory", "512M", "--kernel", folder / "vmlinuz", "--initrd", folder / "disks-initrd",
               "--cmdline", f"console=ttyS0 panic=-1 quiet task=grow grow.to={after // 512}", "--control", control, *arguments]

    def grow(number, size):
        return subprocess.run([BULKHEAD, "disk", "resize", str(number), size, "--control", control], capture_output=True, text=True, timeout=300)

    with log.open("wb") as output:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 180
        while "GROW WAITS" not in log.read_text(errors="replace"):
            assert time.monotonic() < deadline and process.poll() is None, log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)
        refused = grow(0, str(before // 2))
        assert refused.returncode == 1 and "becomes smaller at rest alone" in refused.stderr, refused.stderr
        for number in range(len(disks)):
            done = grow(number, "112M")
            assert done.returncode == 0 and f"the disk has {after} bytes now, {before} before" in done.stdout, done.stdout + done.stderr
        assert process.wait(timeout=180) == 0
    finally:
        process.kill()
        process.wait()
    said = log.read_text(errors="replace")
    for device in ("vda", "nvme0n1", "sda", "vdb", "vdc"):
        assert f"{device} before: {before // 512}" in said and f"{device} after: {after // 512}" in said, said[-3000:]
        assert f"{device} says: the new end" in said, said[-3000:]
    for number, (image_format, _) in enumerate(disks):
        disk = tmp_path / f"disk{number}.{image_format}"
        if image_format != "raw":
            assert subprocess.run([BULKHEAD, "image", "check", "-f", image_format, *encryption[number], disk], capture_output=True).returncode == 0
        raw = tmp_path / "found.raw"
        subprocess.run([BULKHEAD, "image", "convert", "-f", image_format, *encryption[number], disk, raw, "-O", "raw"], check=True, capture_output=True)
        with raw.open("rb") as file:
            file.seek(after - 512)
            assert file.read().startswith(b"the new end\n")
        raw.unlink()


@pytest.mark.parametrize("seed", range(40 if SLOW else 4))
def test_a_machine_that_is_killed_in_the_middle_of_jobs_loses_nothing(machines, seed):
    rng = random.Random(seed)
    machine = machines(image_format=rng.choice(["raw", "qcow2"]))
    machine.wait_for_records(rng.randrange(40, 200))
    chain = 0
    for number in range(rng.randrange(1, 5)):
        verb = rng.choice(["mirror", "snapshot", "commit", "flatten"]) if chain else rng.choice(["mirror", "snapshot"])
        last = machine.folder / f"file{number}"
        words = [verb, 0] + ([last] if verb in ("mirror", "snapshot") else []) + (["--speed", "8M"] if verb != "snapshot" else [])
        chain += {"mirror": -chain, "snapshot": 1, "commit": -1, "flatten": -chain}[verb]
        machine.disk(*words)
        machine.wait_for_records(rng.randrange(1, 40))
    # And one that it does not survive.
    verb = rng.choice(["mirror", "commit", "flatten"] if chain else ["mirror"])
    machine.disk(verb, 0, *([machine.folder / "last"] if verb == "mirror" else []), "--detach", "--speed", "16M")
    time.sleep(rng.random() * 2)
    safe = machine.safe()
    machine.kill()
    check_records(machine, safe)
