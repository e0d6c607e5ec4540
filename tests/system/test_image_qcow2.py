"""The kinds of qcow2 images against qemu-img, in both directions: external data files and extended L2 entries."""

import json
import random
import shutil
import subprocess

import pytest

from bulkhead import BULKHEAD, SLOW
from test_image import MIB, ours, qemu, random_raw, random_size

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")

COUNT = 200 if SLOW else 4

# What both programs call them, and in which sizes of clusters they are.
KINDS = {
    "data-file": ({"data_file": "{stem}.data"}, 9),
    "extended": ({"extended_l2": "on"}, 14),
    "extended-data-file": ({"extended_l2": "on", "data_file": "{stem}.data"}, 14),
    "raw-data-file": ({"data_file": "{stem}.data", "data_file_raw": "on"}, 9),
}
EACH_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def _in_the_folder(tmp_path, monkeypatch):
    """QEMU looks for a data file in the folder that it is started in, and not beside the image."""
    monkeypatch.chdir(tmp_path)


def options_of(rng, kind, stem):
    settings, smallest = KINDS[kind]
    settings = {key: value.format(stem=stem) for key, value in settings.items()}
    return settings | {"cluster_size": 1 << rng.randint(smallest, 21)}


def make_ours(verb, *words, options):
    ours(verb, *words, *(word for key, value in options.items() for word in ("--set", f"{key}={value}")))


def make_theirs(verb, folder, *words, options):
    if "data_file" in options:
        options = options | {"data_file": folder / options["data_file"]}
    qemu("qemu-img", verb, *words[:-1], "-o", ",".join(f"{key}={value}" for key, value in options.items()), *words[-1:])


def change_at_random(rng, path, size, format_="qcow2"):
    commands = []
    for _ in range(rng.randint(4, 24)):
        at = rng.randrange(size // 512) * 512
        run = min(rng.choice((1, 4, 40, 300)) * 512 * rng.randint(1, 4), size - at)
        commands += ["-c", f"{rng.choice((f'write -P {rng.randint(1, 255)}', 'write -z', 'write -z -u', 'discard'))} {at} {run}"]
    qemu("qemu-io", "-f", format_, *commands, path)


def contents(path):
    qemu("qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, f"{path}.contents")
    with open(f"{path}.contents", "rb") as file:
        return file.read()


def merged(ranges):
    runs = []
    for first, end in sorted(ranges):
        if runs and runs[-1][1] == first:
            runs[-1][1] = end
        else:
            runs.append([first, end])
    return runs


def both_find_it_clean(path):
    qemu("qemu-img", "check", "-f", "qcow2", path)
    ours("check", "-f", "qcow2", path)


def both_read_the_same(path):
    both_find_it_clean(path)
    theirs = contents(path)
    ours("compare", "-f", "qcow2", "-F", "raw", path, f"{path}.contents")
    # One that can be used without the other file is what the disk is.
    info = json.loads(ours("info", "-f", "qcow2", "-o", "json", path))
    if info.get("data_file_raw") == "on":
        data = path.parent / info["data_file"]
        assert data.read_bytes()[:len(theirs)] == theirs
    return theirs


@EACH_KIND
@pytest.mark.parametrize("seed", range(COUNT))
def test_qemu_reads_and_changes_what_we_write(tmp_path, kind, seed):
    rng = random.Random(f"{kind} {seed}")
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    make_ours("convert", "-q", tmp_path / "a.raw", tmp_path / "a.qcow2", options=options_of(rng, kind, "a"))
    assert both_read_the_same(tmp_path / "a.qcow2") == (tmp_path / "a.raw").read_bytes()
    change_at_random(rng, tmp_path / "a.qcow2", size)
    both_read_the_same(tmp_path / "a.qcow2")


@EACH_KIND
@pytest.mark.parametrize("seed", range(COUNT))
def test_we_read_and_change_what_qemu_writes(tmp_path, kind, seed):
    rng = random.Random(f"theirs {kind} {seed}")
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    base, top = tmp_path / "base.qcow2", tmp_path / "top.qcow2"
    make_theirs("convert", tmp_path, "-f", "raw", "-O", "qcow2", tmp_path / "a.raw", base, options=options_of(rng, kind, "base"))
    change_at_random(rng, base, size)
    both_read_the_same(base)
    # Our writes are those of a commit.
    options = options_of(rng, "data-file", "top") if rng.random() < 0.5 else {}
    make_ours("create", top, "-b", "base.qcow2", "-F", "qcow2", options=options)
    change_at_random(rng, top, size)
    shown = both_read_the_same(top)
    ours("commit", "-f", "qcow2", top)
    assert both_read_the_same(base) == shown
    if rng.random() < 0.5:
        change_at_random(rng, base, size)
        both_read_the_same(base)


@EACH_KIND
@pytest.mark.parametrize("seed", range(2))
def test_an_image_grows_and_shrinks(tmp_path, kind, seed):
    rng = random.Random(f"resize {kind} {seed}")
    image, size = tmp_path / "a.qcow2", random_size(rng)
    make_ours("create", image, size, options=options_of(rng, kind, "a"))
    for _ in range(4):
        change_at_random(rng, image, size)
        before, new = both_read_the_same(image), random_size(rng)
        ours("resize", "--shrink", "-f", "qcow2", image, new)
        assert both_read_the_same(image) == before[:new] + bytes(max(0, new - size))
        size = new


@pytest.mark.parametrize("seed", range(COUNT))
def test_both_say_the_same_of_subclusters(tmp_path, seed):
    rng = random.Random(f"map {seed}")
    image, size = tmp_path / "a.qcow2", random_size(rng)
    random_raw(tmp_path / "base.raw", rng, size)
    make_ours("create", image, size, "-b", "base.raw", "-F", "raw", options=options_of(rng, "extended", "a"))
    change_at_random(rng, image, size)
    both_read_the_same(image)
    theirs = json.loads(qemu("qemu-img", "map", "--output=json", "-f", "qcow2", image))
    named = {(one["start"], one["start"] + one["length"]) for one in theirs if one["depth"] == 0 and one["data"]}
    ours_of = json.loads(ours("map", "-f", "qcow2", "-o", "json", image))
    mine = {(one["offset"], one["offset"] + one["size"]) for one in ours_of if one["kind"] == "data"}
    assert merged(mine) == merged(named)


@pytest.mark.parametrize("seed", range(COUNT))
def test_compressed_clusters_lie_beside_subclusters(tmp_path, seed):
    rng = random.Random(f"compressed {seed}")
    size = random_size(rng)
    random_raw(tmp_path / "a.raw", rng, size)
    with open(tmp_path / "a.raw", "r+b") as file:  # something that shrinks
        for _ in range(10):
            file.seek(rng.randrange(size))
            file.write((b"%d " % rng.randrange(100) * 40000)[:size - file.tell()])
    image, options = tmp_path / "a.qcow2", options_of(rng, "extended", "a")
    if rng.random() < 0.5:
        make_ours("convert", "-q", "-c", tmp_path / "a.raw", image, options=options)
    else:
        make_theirs("convert", tmp_path, "-c", "-f", "raw", "-O", "qcow2", tmp_path / "a.raw", image, options=options)
    assert both_read_the_same(image) == (tmp_path / "a.raw").read_bytes()
    change_at_random(rng, image, size)
    shown = both_read_the_same(image)
    ours("create", tmp_path / "top.qcow2", "-b", "a.qcow2", "-F", "qcow2")
    change_at_random(rng, tmp_path / "top.qcow2", size)
    shown = both_read_the_same(tmp_path / "top.qcow2")
    ours("commit", "-f", "qcow2", tmp_path / "top.qcow2")
    assert both_read_the_same(image) == shown


PEAK = """import resource, subprocess, sys
status = subprocess.run(sys.argv[1:]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)"""


@pytest.mark.parametrize("cluster,length", [(65536, 1 << 40)] + ([(4096, 1 << 36)] if SLOW else []))
def test_a_long_file_is_counted_and_repaired_in_little_memory(tmp_path, cluster, length):
    image = tmp_path / "a.qcow2"
    ours("create", image, "2M", "--set", f"cluster_size={cluster}")
    qemu("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 1M", image)
    with open(image, "r+b") as file:
        file.truncate(length + 10 * cluster)
    for words in (("check", "-f", "qcow2"), ("check", "--repair", "-f", "qcow2"), ("snapshot", "-f", "qcow2")):
        if "--repair" in words:  # a cluster that is counted too often, so that all counts are built anew
            with open(image, "r+b") as file:
                file.seek(2 * cluster + 2 * 100)
                file.write(b"\0\2")
        command = [str(BULKHEAD), "image", *words, str(image), *(("create", "then") if words[0] == "snapshot" else ())]
        # By a small process: what a child's parent had in memory counts as the child's.
        measured = subprocess.run(["/usr/bin/python3", "-c", PEAK, *command], capture_output=True, text=True, timeout=600)
        assert measured.returncode == 0, measured.stdout + measured.stderr
        assert int(measured.stdout.splitlines()[-1]) < 100 << 10, "KiB"
    qemu("qemu-io", "-r", "-f", "qcow2", "-c", "read -P 7 0 1M", image)


def test_a_data_file_is_named_and_must_be_there(tmp_path):
    ours("create", tmp_path / "a.qcow2", "4M", "--set", "data_file=7", "--set", "data_file_raw=on")
    info = json.loads(ours("info", "-f", "qcow2", "-o", "json", tmp_path / "a.qcow2"))
    assert (info["data_file"], info["data_file_raw"]) == ("7", "on")
    assert json.loads(qemu("qemu-img", "info", "--output=json", tmp_path / "a.qcow2"))["format-specific"]["data"]["data-file-raw"]
    assert (tmp_path / "7").stat().st_size == 4 * MIB
    assert "exists" in ours("create", tmp_path / "b.qcow2", "4M", "--set", "data_file=7", status=1)
    assert "beside the image" in ours("create", tmp_path / "b.qcow2", "4M", "--set", "data_file=../7", status=1)
    assert not (tmp_path / "b.qcow2").exists()
    assert "cannot compress" in ours("convert", "-c", "-f", "qcow2", tmp_path / "a.qcow2", tmp_path / "c.qcow2",
                                     "--set", "data_file=c.data", status=1)
    assert "its data is in '7'" in ours("snapshot", "-f", "qcow2", tmp_path / "a.qcow2", "create", "x", status=1)
    # Whoever wrote an image of unknown format does not choose what is opened.
    assert "state the image's format" in ours("map", tmp_path / "a.qcow2", status=1)
    (tmp_path / "7").unlink()
    assert "data file of" in ours("map", "-f", "qcow2", tmp_path / "a.qcow2", status=1)


def test_a_data_file_outside_the_folder_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    qemu("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'secret'}", tmp_path / "in" / "a.qcow2", "4M")
    assert "leaves the folder" in ours("map", "-f", "qcow2", tmp_path / "in" / "a.qcow2", status=1)
