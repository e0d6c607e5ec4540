"""Builds what the benchmark runs: the program of workloads, the initramfs, and a disk with programs of Debian packages.

Everything lands in .cache/bench, made anew when its sources are newer. Nothing here starts a guest.
"""
import os
import pathlib
import random
import re
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUESTS = ROOT / ".cache/guests"
CACHE = ROOT / ".cache/bench"
WORKLOADS = CACHE / "bench"
INITRD = CACHE / "initrd"
DISK = CACHE / "programs.img"
DISK_ROOT = CACHE / "root"

COMPILER = ["gcc", "-std=gnu11", "-O2", "-static", "-pthread", "-fno-math-errno", "-Wall", "-Wextra"]

# Kernel flavour of every guest but those of the section "boot".
FLAVOUR = "cloud"

PROGRAMS = {
    "gzip": "/usr/bin/gzip", "gunzip": "/usr/bin/gzip", "xz": "/usr/bin/xz", "unxz": "/usr/bin/xz", "sha256sum": "/usr/bin/sha256sum",
    "gnu_sort": "/usr/bin/sort", "python3": "/usr/bin/python3", "sqlite3": "/usr/bin/sqlite3", "cc1": None,
    "openssl_rsa": "/usr/bin/openssl", "openssl_sha256": "/usr/bin/openssl",
}


def newer(target, sources):
    """Whether the target has to be made again."""
    if not target.exists():
        return True
    made = target.stat().st_mtime
    return any(source.stat().st_mtime > made for source in sources)


def build_workloads():
    sources = sorted((HERE / "workloads").glob("*.[ch]"))
    if newer(WORKLOADS, sources + [HERE / "guest.py"]):
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = WORKLOADS.with_suffix(".partial")
        subprocess.run(COMPILER + ["-o", partial] + [s for s in sources if s.suffix == ".c"], check=True)
        partial.replace(WORKLOADS)


def workloads():
    """Name -> group of all workloads, in the order in which they run."""
    listing = subprocess.run([WORKLOADS, "list"], check=True, capture_output=True, text=True).stdout
    return {name: group for group, name, _ in (line.split() for line in listing.splitlines())}


def build_initrd():
    """Busybox, the virtio modules of the kernel, the workloads, and bench/engine/init."""
    folder = GUESTS / FLAVOUR
    if not (folder / "vmlinuz").exists():
        raise SystemExit(f"bench: no {folder}/vmlinuz: run tools/guests first")
    if not newer(INITRD, [WORKLOADS, HERE / "init", HERE / "guest.py", folder / "vmlinuz"]):
        return
    release = (folder / "release").read_text().strip()
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        for name in ("bin", "dev", "proc", "sys", "tmp", "mnt", "etc", f"lib/modules/{release}"):
            (root / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin/busybox")
        (root / "bin/sh").symlink_to("busybox")
        shutil.copy(WORKLOADS, root / "bin/bench")
        shutil.copy(HERE / "init", root / "init")
        (root / "init").chmod(0o755)
        for module in (folder / "modules").glob("*.ko"):
            shutil.copy(module, root / "lib/modules" / release)
        subprocess.run(["depmod", "-b", root, release], check=True, stderr=subprocess.DEVNULL)
        partial = INITRD.with_suffix(".partial")
        with open(partial, "wb") as out:
            subprocess.run("find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0", shell=True, cwd=root, stdout=out, check=True)
        partial.replace(INITRD)


def compiler_proper():
    return subprocess.run(["gcc", "-print-prog-name=cc1"], check=True, capture_output=True, text=True).stdout.strip()


def available_programs():
    """The programs that are installed here; what is missing is not measured, and the report says so."""
    return [name for name, path in PROGRAMS.items() if pathlib.Path(path or compiler_proper()).exists()]


def libraries(path):
    """Paths of the shared libraries and of the loader that a program names."""
    listing = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
    return [word for word in re.findall(r"(/\S+)", listing) if os.path.exists(word)]


def copy_into(root, path):
    """Copies a file of this host to the same place below root, where /bin, /lib and such are links into /usr."""
    path = re.sub(r"^/(bin|sbin|lib|lib64)/", r"/usr/\1/", str(path))
    target = root / path.lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)


def copy_python(root):
    """The interpreter's standard library without its tests and compiled files, and the modules that are shared objects."""
    library = pathlib.Path(os.path.realpath("/usr/bin/python3")).name  # such as python3.11
    source = pathlib.Path("/usr/lib") / library
    unneeded = shutil.ignore_patterns("test", "tests", "idlelib", "lib2to3", "tkinter", "ensurepip", "distutils", "config-*", "turtledemo")
    shutil.copytree(source, root / "usr/lib" / library, ignore=unneeded, symlinks=False, dirs_exist_ok=True)
    for module in (source / "lib-dynload").glob("*.so"):
        for path in libraries(module):
            copy_into(root, path)


PYTHON_SCRIPT = """
import json, re
words = open('words').read().split()
counts = {}
for word in words:
    counts[word] = counts.get(word, 0) + 1
table = [{'word': w, 'count': c, 'half': c / 2} for w, c in sorted(counts.items())]
again = json.loads(json.dumps(table))
total = sum(len(re.findall('[aeiou]+', row['word'])) * row['count'] for row in again)
def collatz(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps
print(total, max(collatz(n) for n in range(1, 1500)), pow(7, 65537, 10**200 + 7) % 10**18)
"""

SQL_SCRIPT = """
create table item(id integer primary key, name text, price real, kind integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 8000)
  insert into item select i, 'item ' || (i * 7919 % 8000), (i * 31 % 1000) / 8.0, i % 17 from n;
create index by_name on item(name);
select kind, count(*), sum(price), max(name) from item group by kind;
select count(*) from item a join item b on a.name = 'item ' || b.id where b.kind < 9;
update item set price = price * 2 where name like '%7%';
select name, price from item where kind = 3 order by price desc, name limit 20;
delete from item where id % 3 = 0;
select count(*), sum(price) from item;
"""


def make_text(size, seed):
    """Lines of made-up words with the frequencies of a language, so that compressors find something."""
    source = random.Random(seed)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    vocabulary = ["".join(source.choice(letters[:source.randint(6, 26)]) for _ in range(source.randint(2, 9))) for _ in range(4000)]
    lines, length = [], 0
    while length < size:
        line = " ".join(vocabulary[min(int(source.paretovariate(0.7)) - 1, 3999)] for _ in range(source.randint(4, 14)))
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)[:size - 1] + "\n"


def make_data(folder):
    folder.mkdir(parents=True, exist_ok=True)
    text = make_text(1 << 20, 1)
    (folder / "text").write_text(text)
    (folder / "words").write_text(text[:200000])
    (folder / "large").write_text(text * 12)
    (folder / "script.py").write_text(PYTHON_SCRIPT)
    (folder / "script.sql").write_text(SQL_SCRIPT)
    (folder / "cc1.path").write_text(compiler_proper() + "\n")
    shutil.copy(HERE / "programs.sh", folder)
    subprocess.run("gzip -9 -n -c text > text.gz && xz -T1 -6 -c text > text.xz", shell=True, cwd=folder, check=True)
    subprocess.run(["gcc", "-E", "-P", "-O2", "-o", folder / "source.i", HERE / "workloads/scaling.c"], check=True)


def build_disk():
    """A Debian root of only these programs with their libraries and data, as a read-only ext4 image; the host uses its data folder."""
    if not newer(DISK, [HERE / "guest.py", HERE / "programs.sh", WORKLOADS]):
        return
    shutil.rmtree(DISK_ROOT, ignore_errors=True)
    for name in ("dev", "proc", "tmp", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"):
        (DISK_ROOT / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (DISK_ROOT / name).symlink_to(f"usr/{name}")
    tools = ["/usr/bin/dash", "/usr/bin/sed", "/usr/bin/cat", "/usr/bin/rm"]
    for path in tools + [PROGRAMS[name] or compiler_proper() for name in available_programs()]:
        copy_into(DISK_ROOT, path)
        for library in libraries(path):
            copy_into(DISK_ROOT, library)
    copy_python(DISK_ROOT)
    shutil.copy(WORKLOADS, DISK_ROOT / "usr/bin/bench")
    make_data(DISK_ROOT / "data")
    partial = DISK.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with open(partial, "wb") as image:
        image.truncate(256 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-d", DISK_ROOT, partial], check=True)
    partial.replace(DISK)
