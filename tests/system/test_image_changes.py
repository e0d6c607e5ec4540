"""The verbs of bulkhead image that change an image at rest, with qemu-img as the other opinion: snapshot, commit, rebase, resize,
bitmaps."""

import json
import random
import shutil
import subprocess
import time

import pytest

from bulkhead import BULKHEAD
from test_image import COUNT, MIB, ours, qemu, random_raw, random_size
from test_image_formats import change_at_random

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


def contents(path, format_="qcow2"):
    qemu("qemu-img", "convert", "-f", format_, "-O", "raw", path, f"{path}.contents")
    with open(f"{path}.contents", "rb") as file:
        return file.read()


@pytest.mark.parametrize("seed", range(COUNT))
def test_snapshots_of_both_programs_are_the_same(tmp_path, seed):
    rng = random.Random(f"snapshot {seed}")
    image, size = tmp_path / "a.qcow2", random_size(rng)
    kind = ([], ["--set", "version=2"], ["--set", "extended_l2=on"])[seed % 3]
    ours("create", image, size, "--set", f"cluster_size={1 << rng.randint(14 if seed % 3 == 2 else 9, 18)}", *kind)
    states = {}
    for step in range(8):
        change_at_random(rng, image, "qcow2", size)
        action = rng.choice(("create", "create", "apply", "delete"))
        name = rng.choice(list(states)) if states and action != "create" else f"state {step}"
        if action == "create" or name not in states:
            states[name] = contents(image)
            if rng.random() < 0.5:
                ours("snapshot", "-f", "qcow2", image, "create", name)
            else:
                qemu("qemu-img", "snapshot", "-c", name, image)
        elif action == "apply":
            if rng.random() < 0.7:
                ours("snapshot", "-f", "qcow2", image, "apply", name)
            else:
                qemu("qemu-img", "snapshot", "-a", name, image)
            assert contents(image) == states[name]
        else:
            before = contents(image)
            if rng.random() < 0.7:
                ours("snapshot", "-f", "qcow2", image, "delete", name)
            else:
                qemu("qemu-img", "snapshot", "-d", name, image)
            del states[name]
            assert contents(image) == before
        qemu("qemu-img", "check", "-f", "qcow2", image)
        ours("check", "-f", "qcow2", image)
        listed = json.loads(ours("snapshot", image, "list", "-o", "json"))
        assert sorted(one["name"] for one in listed) == sorted(states)
    for name, state in states.items():
        ours("snapshot", "-f", "qcow2", image, "apply", name)
        assert contents(image) == state


@pytest.mark.parametrize("format_,theirs", [("qcow2", "qcow2"), ("vhd", None), ("vhdx", None), ("vmdk", "vmdk")])
@pytest.mark.parametrize("seed", range(3))
def test_commit_puts_the_overlay_into_its_backing_file(tmp_path, format_, theirs, seed):
    rng = random.Random(f"commit {seed}")
    size = random_size(rng)
    random_raw(tmp_path / "base.raw", rng, size)
    random_raw(tmp_path / "new.raw", rng, size)
    ours("convert", tmp_path / "base.raw", tmp_path / "base.image", "-O", format_)
    ours("create", "-f", format_, tmp_path / "top.image", "-b", "base.image", "-F", format_)
    if theirs:
        change_at_random(rng, tmp_path / "top.image", theirs, size)
    ours("convert", "-f", format_, tmp_path / "top.image", tmp_path / "before.raw")
    assert "state its format" in ours("commit", tmp_path / "top.image", status=1)
    done = json.loads(ours("commit", "-f", format_, "-o", "json", tmp_path / "top.image"))
    assert (done["bytes"] > 0) == bool(theirs)
    ours("compare", "-f", format_, "-F", "raw", tmp_path / "base.image", tmp_path / "before.raw")
    ours("check", "-f", format_, tmp_path / "base.image")


@pytest.mark.parametrize("seed", range(COUNT))
def test_rebase_keeps_what_the_image_shows(tmp_path, seed):
    rng = random.Random(f"rebase {seed}")
    size = random_size(rng)
    for name in ("old.raw", "other.raw"):
        random_raw(tmp_path / name, rng, random_size(rng) if rng.random() < 0.5 else size)
    ours("create", tmp_path / "top.qcow2", size, "-b", "old.raw", "-F", "raw", "--set", f"extended_l2={rng.choice(('on', 'off'))}")
    change_at_random(rng, tmp_path / "top.qcow2", "qcow2", size)
    shown = contents(tmp_path / "top.qcow2")
    ours("rebase", "-f", "qcow2", "-b", "other.raw", "-F", "raw", tmp_path / "top.qcow2")
    assert json.loads(qemu("qemu-img", "info", "--output=json", tmp_path / "top.qcow2"))["backing-filename"] == "other.raw"
    assert contents(tmp_path / "top.qcow2") == shown
    ours("rebase", "-f", "qcow2", tmp_path / "top.qcow2")
    (tmp_path / "other.raw").unlink()
    assert contents(tmp_path / "top.qcow2") == shown
    qemu("qemu-img", "check", "-f", "qcow2", tmp_path / "top.qcow2")
    ours("check", tmp_path / "top.qcow2")


@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_shrink_keeps_the_beginning(tmp_path, format_):
    random_raw(tmp_path / "a.raw", random.Random(4), 5 * MIB)
    ours("convert", tmp_path / "a.raw", tmp_path / "a.image", "-O", format_)
    assert "--shrink allows it" in ours("resize", "-f", format_, tmp_path / "a.image", "3000000", status=1)
    done = json.loads(ours("resize", "--shrink", "-o", "json", "-f", format_, tmp_path / "a.image", "3000320"))
    assert done == {"virtual_size": 3000320}
    assert contents(tmp_path / "a.image", format_) == (tmp_path / "a.raw").read_bytes()[:3000320]
    if format_ == "qcow2":
        qemu("qemu-img", "check", "-f", "qcow2", tmp_path / "a.image")


def test_every_verb_speaks_json(tmp_path):
    one, two = tmp_path / "a.qcow2", tmp_path / "b.vmdk"
    assert json.loads(ours("create", "-o", "json", one, "1M"))["virtual_size"] == MIB
    assert json.loads(ours("convert", "-o", "json", one, two))["format"] == "vmdk"
    assert json.loads(ours("info", "-o", "json", two))["subformat"] == "monolithicSparse"
    assert json.loads(ours("check", "-o", "json", two))["errors"] == 0
    assert json.loads(ours("map", "-o", "json", two))[0]["kind"] == "absent"
    assert json.loads(ours("compare", "-o", "json", one, two)) == {"equal": True}
    ours("resize", "-f", "qcow2", one, "2M")
    assert json.loads(ours("compare", "-o", "json", one, two, status=2))["equal"] is False
    assert json.loads(ours("snapshot", "-f", "qcow2", "-o", "json", one, "create", "a")) == {"name": "a"}


def test_an_unsafe_rebase_changes_the_name_alone(tmp_path):
    rng = random.Random("unsafe")
    for name in ("old.raw", "new.raw"):
        random_raw(tmp_path / name, rng, 2 * MIB)
    for name in ("ours.qcow2", "theirs.qcow2"):
        ours("create", tmp_path / name, "-b", "old.raw", "-F", "raw")
    (tmp_path / "old.raw").unlink()
    before = (tmp_path / "ours.qcow2").read_bytes()
    ours("rebase", "-u", "-f", "qcow2", "-b", "new.raw", "-F", "raw", tmp_path / "ours.qcow2")
    qemu("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", "new.raw", "-F", "raw", tmp_path / "theirs.qcow2")
    assert (tmp_path / "ours.qcow2").read_bytes()[512:] == before[512:]
    qemu("qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", tmp_path / "ours.qcow2", tmp_path / "theirs.qcow2")
    assert contents(tmp_path / "ours.qcow2") == (tmp_path / "new.raw").read_bytes()
    # A name that cannot be kept is found before anything is copied.
    assert "does not fit" in ours("rebase", "-f", "qcow2", "-b", "x" * 1500, "-F", "raw", tmp_path / "ours.qcow2", status=1)


@pytest.mark.parametrize("format_", ["vhd", "vhdx", "vmdk"])
def test_rebase_of_formats_that_know_their_parent(tmp_path, format_):
    """Each has in it which file its parent is, not only how that is called."""
    rng, size = random.Random(f"rebase {format_}"), 5 * MIB + 512
    top, image = tmp_path / "top.image", ["-f", format_]
    for name, bytes_ in (("old", size), ("other", 3 * MIB)):
        random_raw(tmp_path / f"{name}.raw", rng, bytes_)
        ours("convert", tmp_path / f"{name}.raw", tmp_path / f"{name}.image", "-O", format_)
    ours("create", *image, top, "-b", "old.image", "-F", format_)
    ours("bench", *image, "-w", "-c", "3", "-s", "4096", "-S", "1048576", top)
    ours("convert", *image, top, tmp_path / "before.raw")

    def shows_what_it_did(backing):
        ours("compare", *image, "-F", "raw", top, tmp_path / "before.raw")
        ours("check", *image, top)
        assert json.loads(ours("info", *image, "-o", "json", top)).get("backing_name") == backing
        if format_ == "vmdk":
            assert contents(top, "vmdk") == (tmp_path / "before.raw").read_bytes()
            assert json.loads(qemu("qemu-img", "info", "-f", "vmdk", "--output=json", top)).get("full-backing-filename") == (
                str(tmp_path / backing) if backing else None)

    (tmp_path / "old.image").rename(tmp_path / "moved.image")
    ours("rebase", "-u", *image, "-b", "moved.image", "-F", format_, top)
    shows_what_it_did("moved.image")
    assert f"must be a {format_.upper()} image, not raw" in ours("rebase", *image, "-b", "old.raw", "-F", "raw", top, status=1)
    ours("rebase", *image, "-b", "other.image", "-F", format_, top)
    (tmp_path / "moved.image").unlink()
    shows_what_it_did("other.image")
    ours("rebase", *image, top)
    (tmp_path / "other.image").unlink()
    shows_what_it_did(None)


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse", "monolithicSparse"])
def test_growing_vmdk(tmp_path, subformat):
    random_raw(tmp_path / "a.raw", random.Random(subformat), 300 * 1024)
    split = ["--set", "extent_size=131072"] if "twoGb" in subformat else []
    image = tmp_path / "a.vmdk"
    ours("convert", tmp_path / "a.raw", image, "--set", f"subformat={subformat}", *split)
    expected = (tmp_path / "a.raw").read_bytes()
    for size in (310 * 1024, MIB + 512, 40 * MIB):
        ours("resize", "-f", "vmdk", image, size)
        expected = expected.ljust(size, b"\0")
        assert json.loads(qemu("qemu-img", "info", "-f", "vmdk", "--output=json", image))["virtual-size"] == size
        qemu("qemu-io", "-f", "vmdk", "-c", f"write -P 7 {size - 1024} 1024", image)
        expected = expected[: size - 1024] + b"\7" * 1024
        assert contents(image, "vmdk") == expected
        if "Sparse" in subformat:
            qemu("qemu-img", "check", "-f", "vmdk", image)
        ours("check", "-f", "vmdk", image)
    (tmp_path / "b.raw").write_bytes(expected)
    ours("compare", "-f", "vmdk", "-F", "raw", image, tmp_path / "b.raw")
    assert f'createType="{subformat}"'.encode() in image.read_bytes()


def test_growing_vhdx_beyond_its_table(tmp_path):
    image = tmp_path / "a.vhdx"
    ours("create", image, "4M", "--set", "block_size=1048576")
    qemu("qemu-io", "-f", "vhdx", "-c", "write -P 5 1M 64K", image)
    for size in (200 << 30, 600 << 30):
        ours("resize", "-f", "vhdx", image, size)
        assert json.loads(qemu("qemu-img", "info", "-f", "vhdx", "--output=json", image))["virtual-size"] == size
        qemu("qemu-io", "-f", "vhdx", "-c", f"write -P 6 {size - 65536} 64K", image)
        for pattern, offset in ((5, MIB), (6, size - 65536), (0, size - 131072)):
            assert "verification failed" not in qemu("qemu-io", "-f", "vhdx", "-c", f"read -P {pattern} {offset} 64K", image)
        qemu("qemu-img", "check", "-f", "vhdx", image)
        ours("check", "-f", "vhdx", image)


def dirty_by_qemu(image, name, folder):
    """The runs that a persistent bitmap has, as qemu-nbd tells them."""
    socket = folder / "nbd"
    with subprocess.Popen(["qemu-nbd", "-r", "-f", "qcow2", "-B", name, "-k", socket, image]) as server:
        # It ends with its first client, and has let go of the image and of the socket then.
        deadline = time.monotonic() + 60
        listed = None
        while listed is None:
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.02)
            asked = subprocess.run(["nbdinfo", "--json", f"--map=qemu:dirty-bitmap:{name}", f"nbd+unix:///?socket={socket}"],
                                   capture_output=True, text=True, check=False, timeout=60)
            listed = json.loads(asked.stdout) if asked.returncode == 0 else None
        assert server.wait(60) == 0
    return merged((run["offset"], run["length"]) for run in listed if run["type"] & 1)


def merged(runs):
    result = []
    for offset, size in runs:
        if result and sum(result[-1]) == offset:
            result[-1] = (result[-1][0], result[-1][1] + size)
        else:
            result.append((offset, size))
    return result


def changed(image, name):
    return merged((run["offset"], run["size"]) for run in json.loads(ours("bitmap", "-o", "json", image, "changed", name)))


@pytest.mark.skipif(not shutil.which("nbdinfo"), reason="needs nbdinfo")
def test_bitmaps_are_resized_as_by_qemu(tmp_path):
    """The same steps by both programs: the same bits, and each finds nothing wrong."""
    mine, theirs = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", mine, 8 * MIB)
    for options in (("-g", "64K", "auto"), ("-g", "512", "fine"), ("--disable", "-g", "64K", "disabled")):
        qemu("qemu-img", "bitmap", "--add", "-f", "qcow2", *options[:-1], mine, options[-1])
    qemu("qemu-io", "-f", "qcow2", "-c", f"write {MIB} 4096", "-c", f"write {8 * MIB - 70000} 70000", mine)
    qemu("qemu-img", "bitmap", "--enable", "-f", "qcow2", mine, "disabled")
    qemu("qemu-io", "-f", "qcow2", "-c", f"write {7 * MIB} 4096", mine)
    qemu("qemu-img", "bitmap", "--disable", "-f", "qcow2", mine, "disabled")
    shutil.copy(mine, theirs)
    for size in (100 * MIB + 512, 7 * MIB + 1024, 8 * MIB):
        ours("resize", "-f", "qcow2", "--shrink", mine, size)
        qemu("qemu-img", "resize", "-q", "-f", "qcow2", "--shrink", theirs, size)
        for image in (mine, theirs):
            qemu("qemu-io", "-f", "qcow2", "-c", f"write {size - 512} 512", image)
            qemu("qemu-img", "check", "-f", "qcow2", image)
            ours("check", image)
        for name in ("auto", "fine", "disabled"):
            assert changed(mine, name) == dirty_by_qemu(mine, name, tmp_path) == dirty_by_qemu(theirs, name, tmp_path), (size, name)
    assert changed(mine, "disabled") == [(7 * MIB, 65536)]
    shown = [json.loads(qemu("qemu-img", "info", "--output=json", image))["format-specific"]["data"]["bitmaps"] for image in (mine, theirs)]
    assert sorted(shown[0], key=str) == sorted(shown[1], key=str)


@pytest.mark.skipif(not shutil.which("nbdinfo"), reason="needs nbdinfo")
def test_bitmaps_are_kept_by_both_programs(tmp_path):
    image, size = tmp_path / "a.qcow2", 8 * MIB + 65536 + 512
    ours("create", image, size, "--set", "cluster_size=4096")
    ours("bitmap", "-f", "qcow2", image, "add", "ours")
    qemu("qemu-img", "bitmap", "--add", "-g", "32K", "-f", "qcow2", image, "theirs")
    qemu("qemu-img", "bitmap", "--add", "--disable", "-f", "qcow2", image, "disabled")
    ours("bench", "-f", "qcow2", "-w", "-c", "3", "-s", "4096", "-S", "1048576", image)
    assert changed(image, "theirs") == dirty_by_qemu(image, "theirs", tmp_path) == [(at * MIB, 32768) for at in range(3)]
    qemu("qemu-io", "-f", "qcow2", "-c", f"write {5 * MIB} 100000", "-c", f"discard {size - 512} 512", image)
    expected = [(0, 65536), (MIB, 65536), (2 * MIB, 65536), (5 * MIB, 131072), (8 * MIB + 65536, 512)]
    assert changed(image, "ours") == dirty_by_qemu(image, "ours", tmp_path) == expected
    listed = {one["name"]: one for one in json.loads(ours("bitmap", "-o", "json", image, "list"))}
    assert [(listed[name]["automatic"], listed[name]["known"]) for name in ("ours", "theirs", "disabled")] == [(True, True)] * 2 + [(False, True)]
    shown = json.loads(qemu("qemu-img", "info", "--output=json", image))["format-specific"]["data"]["bitmaps"]
    assert {one["name"]: one["flags"] for one in shown} == {"ours": ["auto"], "theirs": ["auto"], "disabled": []}
    for check in (lambda: qemu("qemu-img", "check", "-f", "qcow2", image), lambda: ours("check", image)):
        check()
    # Snapshots are made and deleted beside them; neither program goes back to one.
    ours("snapshot", "-f", "qcow2", image, "create", "one")
    qemu("qemu-img", "snapshot", "-c", "two", image)
    assert "has bitmaps" in ours("snapshot", "-f", "qcow2", image, "apply", "one", status=1)
    ours("snapshot", "-f", "qcow2", image, "delete", "two")
    qemu("qemu-img", "check", "-f", "qcow2", image)
    ours("check", image)
    assert changed(image, "ours") == dirty_by_qemu(image, "ours", tmp_path) == expected
    ours("snapshot", "-f", "qcow2", image, "delete", "one")
    qemu("qemu-img", "check", "-f", "qcow2", image)
    # A program that is killed while it has the image open: nobody knows what it wrote.
    server = subprocess.Popen([str(BULKHEAD), "image", "serve", "-f", "qcow2", "--socket", str(tmp_path / "serve"), str(image)], stdout=subprocess.PIPE)
    uri = server.stdout.readline().decode().strip()
    qemu("qemu-io", "-f", "raw", "-c", "write 0 65536", "-c", "flush", uri)
    server.kill()
    server.wait()
    shown = json.loads(qemu("qemu-img", "info", "--output=json", image))["format-specific"]["data"]["bitmaps"]
    assert {one["name"]: one["flags"] for one in shown} == {"ours": ["in-use", "auto"], "theirs": ["in-use", "auto"], "disabled": []}
    assert "is lost" in ours("bitmap", image, "changed", "ours", status=1)
    assert " lost ours" in ours("bitmap", image, "list")
    for name in ("ours", "theirs", "disabled"):
        ours("bitmap", "-f", "qcow2", image, "delete", name)
    assert "bitmaps" not in json.loads(qemu("qemu-img", "info", "--output=json", image))["format-specific"]["data"]
    qemu("qemu-img", "check", "-f", "qcow2", image)
    ours("check", image)


def test_a_snapshot_of_an_image_in_use_names_the_process_that_has_it(tmp_path):
    image = tmp_path / "a.qcow2"
    ours("create", image, MIB)
    server = subprocess.Popen([str(BULKHEAD), "image", "serve", "-f", "qcow2", "--socket", str(tmp_path / "serve"), str(image)], stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        said = ours("snapshot", "-f", "qcow2", image, "create", "one", status=1)
        assert f"in use by process {server.pid} (" in said, said
    finally:
        server.kill()
        server.wait()
    ours("snapshot", "-f", "qcow2", image, "create", "one")
