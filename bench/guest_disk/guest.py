"""What the guest disks' benchmark runs: Debian's fio with its libraries on a disk, an initramfs, and the images that are measured.

Debian's packages are fetched once, by mmdebstrap, and unpacked only: the host's system stays as it is. All of it lands in .cache/bench-guest-disk.
"""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUEST = ROOT / ".cache/guests/cloud"
CACHE = ROOT / ".cache/bench-guest-disk"
PACKAGES = CACHE / "packages.tar"
PROGRAMS = CACHE / "programs.img"
INITRD = CACHE / "initrd"
SUITE = "bookworm"
MIB = 1 << 20


def newer(target, sources):
    """Whether the target has to be made again."""
    return not target.exists() or any(source.stat().st_mtime > target.stat().st_mtime for source in sources)


def fetch_packages():
    if PACKAGES.exists():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    partial = CACHE / "packages.partial.tar"
    done = subprocess.run(["mmdebstrap", "--quiet", "--variant=extract", "--include=fio", "--dpkgopt=path-exclude=/usr/share/*", SUITE, partial],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: mmdebstrap could not fetch fio: {done.stderr.strip()[-800:]}")
    partial.replace(PACKAGES)


def build_programs():
    """An ext4 image with /fio and /lib, which has the loader and every library that fio is linked with, directly or not."""
    if not newer(PROGRAMS, [PACKAGES]):
        return
    with tempfile.TemporaryDirectory() as scratch:
        root, made = pathlib.Path(scratch) / "root", pathlib.Path(scratch) / "made"
        root.mkdir()
        (made / "lib").mkdir(parents=True)
        subprocess.run(["tar", "-xf", PACKAGES, "-C", root, "--exclude=./dev/*"], check=True)
        folders = [root / "lib/x86_64-linux-gnu", root / "usr/lib/x86_64-linux-gnu", root / "usr/lib/x86_64-linux-gnu/ceph"]
        loader = root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        listing = subprocess.run([loader, "--library-path", ":".join(map(str, folders)), "--list", root / "usr/bin/fio"],
                                 capture_output=True, text=True, check=True).stdout
        for path in re.findall(rf"({re.escape(str(root))}\S+)", listing):
            shutil.copy(os.path.realpath(path), made / "lib" / pathlib.Path(path).name)
        shutil.copy(loader, made / "lib/ld-linux-x86-64.so.2")
        shutil.copy(root / "usr/bin/fio", made / "fio")
        partial = PROGRAMS.with_suffix(".partial")
        with partial.open("wb") as image:
            image.truncate(160 * MIB)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-F", "-d", made, partial], check=True)
        partial.replace(PROGRAMS)


def build_initrd():
    base = GUEST / "initrd"
    if not newer(INITRD, [base, HERE / "init", HERE / "guest.py"]):
        return
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(HERE / "init", pathlib.Path(scratch) / "fio-init")
        os.chmod(pathlib.Path(scratch) / "fio-init", 0o755)
        archive = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], input=b"fio-init\n", cwd=scratch, capture_output=True, check=True)
    before = base.read_bytes()
    INITRD.write_bytes(before + bytes(-len(before) % 4) + archive.stdout)


def build_image(image_format, mib):
    """A fully written image. It lies in the page cache in small pages, as a guest's requests leave it there (bench/README.md)."""
    path = CACHE / f"work-{mib}.{image_format}"
    filled = CACHE / "filled.raw"
    with filled.open("wb") as file:
        block = os.urandom(MIB)
        for _ in range(mib):
            file.write(block)
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", image_format, filled, path], check=True)
    filled.unlink()
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for offset in range(0, len(content), 4096):
            os.pwrite(file.fileno(), content[offset:offset + 4096], offset)
    return path


def warm(path):
    """Brings back what other work on the host has driven out of the page cache, and writes out what is dirty."""
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for offset in range(0, path.stat().st_size, 4096):
            os.pread(file.fileno(), 4096, offset)


def build():
    fetch_packages()
    build_programs()
    build_initrd()
