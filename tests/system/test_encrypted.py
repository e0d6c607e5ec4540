"""Encrypted disks, with qemu-img (LUKS1, qcow2), cryptsetup (headers and keyslots of both versions) and python3-cryptography (the data of
LUKS2) as the other opinions."""

import json
import pathlib
import random
import re
import shutil
import subprocess

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bulkhead import SLOW
from test_image import MIB, ours, qemu, random_raw, random_size

CRYPTSETUP = shutil.which("cryptsetup") or "/sbin/cryptsetup"
QUICK = ("--set", "iterations=1000")
QUICK_ARGON2 = ("--set", "iterations=2", "--set", "memory=256")

pytestmark = pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img")


def seeds(kinds):
    """Of a test in so many kinds: 200 images in all in the long form, else one of each kind."""
    return pytest.mark.parametrize("seed", range(-(-200 // kinds) if SLOW else 1))


@pytest.fixture(name="secret")
def fixture_secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"correct horse \x00\xff battery staple")
    return path


@pytest.fixture(name="passphrase")
def fixture_passphrase(tmp_path):
    """For qemu-img, whose secrets are text."""
    path = tmp_path / "passphrase"
    path.write_text("correct horse battery staple")
    return path


def cryptsetup(*words, status=0):
    done = subprocess.run([CRYPTSETUP, "--batch-mode", *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def qemu_encrypts(target, *words):
    """qemu-img makes an encrypted image. It measures the host before, which fails when the host is busy: "Unable to get accurate CPU usage"."""
    for _ in range(50):
        done = subprocess.run(["qemu-img", *map(str, words), str(target)], capture_output=True, text=True, timeout=120, check=False)
        if "accurate CPU usage" not in done.stderr:
            break
        target.unlink(missing_ok=True)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"


def object_of(secret):
    return ("--object", f"secret,id=key,file={secret}")


def options_of(path, driver):
    key = "key-secret" if driver == "luks" else "encrypt.key-secret"
    return f"driver={driver},{key}=key,file.driver=file,file.filename={path}"


def theirs_to_raw(path, driver, secret):
    raw = pathlib.Path(f"{path}.theirs")
    raw.unlink(missing_ok=True)
    qemu("qemu-img", "convert", *object_of(secret), "--image-opts", "-O", "raw", options_of(path, driver), raw)
    return raw.read_bytes()


def ours_to_raw(path, format_, secret):
    raw = pathlib.Path(f"{path}.ours")
    raw.unlink(missing_ok=True)
    ours("convert", "-f", format_, "-O", "raw", "--encrypt", secret, path, raw)
    return raw.read_bytes()


@seeds(2)
@pytest.mark.parametrize("cipher", ["aes-xts-plain64", "aes-cbc-essiv:sha256"])
def test_qemu_and_cryptsetup_read_our_luks1(tmp_path, passphrase, cipher, seed):
    rng, raw = random.Random(f"{cipher} {seed}"), tmp_path / "a.raw"
    size = random_size(rng)
    random_raw(raw, rng, size)
    ours("convert", raw, tmp_path / "a.luks", "--target-encrypt", passphrase, "--set", "version=1", "--set", f"cipher={cipher}", *QUICK)
    assert theirs_to_raw(tmp_path / "a.luks", "luks", passphrase) == raw.read_bytes()
    assert ours_to_raw(tmp_path / "a.luks", "luks", passphrase) == raw.read_bytes()
    cryptsetup("open", "--test-passphrase", "--key-file", passphrase, tmp_path / "a.luks")
    dump = cryptsetup("luksDump", tmp_path / "a.luks")
    info = json.loads(ours("info", "-o", "json", tmp_path / "a.luks"))
    assert info["format"] == "luks" and info["encryption"] == "luks1" and info["uuid"] in dump
    assert info["cipher"] == cipher and info["virtual_size"] == size
    assert "0 errors" in ours("check", tmp_path / "a.luks")


@seeds(4)
@pytest.mark.parametrize("words", ["cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha256",
                                   "cipher-alg=aes-128,cipher-mode=xts,ivgen-alg=plain,hash-alg=sha1",
                                   "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=ripemd160",
                                   "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512"])
def test_we_read_and_write_what_qemu_encrypts(tmp_path, passphrase, words, seed):
    rng, raw, image = random.Random(f"{words} {seed}"), tmp_path / "a.raw", tmp_path / "a.luks"
    size = random_size(rng)
    random_raw(raw, rng, size)
    qemu_encrypts(image, "convert", *object_of(passphrase), "-O", "luks", "-o", f"key-secret=key,iter-time=10,{words}", raw)
    assert ours_to_raw(image, "luks", passphrase) == raw.read_bytes()
    ours("resize", "-f", "luks", "--encrypt", passphrase, image, size + MIB)
    assert theirs_to_raw(image, "luks", passphrase) == raw.read_bytes() + bytes(MIB)


@pytest.mark.parametrize("seed", range(200 if SLOW else 4))
def test_encrypted_qcow2_is_the_same_for_both_programs(tmp_path, passphrase, seed):
    rng = random.Random(f"encrypted qcow2 {seed}")
    raw, size = tmp_path / "a.raw", random_size(rng)
    random_raw(raw, rng, size)
    cluster = 1 << rng.randint(9, 18)
    if seed % 2 == 0:
        ours("convert", raw, tmp_path / "a.qcow2", "--target-encrypt", passphrase, "--set", f"cluster_size={cluster}", *QUICK)
    else:
        qemu_encrypts(tmp_path / "a.qcow2", "convert", *object_of(passphrase), "-O", "qcow2",
                      "-o", f"encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10,cluster_size={cluster}", raw)
    images = [tmp_path / "a.qcow2"]
    assert theirs_to_raw(images[0], "qcow2", passphrase) == ours_to_raw(images[0], "qcow2", passphrase) == raw.read_bytes()
    # An overlay that is encrypted too, changed by both.
    ours("create", "-b", "a.qcow2", "-F", "qcow2", "--encrypt", passphrase, tmp_path / "b.qcow2", *QUICK)
    images.append(tmp_path / "b.qcow2")
    commands = []
    for number in range(10):
        at = rng.randrange(size // 512) * 512
        run = min(rng.randint(1, 300) * 512, size - at)
        commands += ["-c", f"{rng.choice((f'write -P {number + 1}', 'write -z', 'discard'))} {at} {run}"]
    overlay = (f"{options_of(images[1], 'qcow2')},backing.driver=qcow2,backing.encrypt.key-secret=key,"
               f"backing.file.driver=file,backing.file.filename={images[0]}")
    qemu("qemu-io", *object_of(passphrase), "--image-opts", overlay, *commands)
    qemu("qemu-img", "convert", *object_of(passphrase), "--image-opts", "-O", "raw", overlay, tmp_path / "b.raw")
    assert ours_to_raw(images[1], "qcow2", passphrase) == (tmp_path / "b.raw").read_bytes()
    ours("rebase", "-f", "qcow2", "--encrypt", passphrase, images[1])
    assert theirs_to_raw(images[1], "qcow2", passphrase) == (tmp_path / "b.raw").read_bytes()
    ours("snapshot", "-f", "qcow2", "--encrypt", passphrase, images[1], "create", "one")
    ours("snapshot", "-f", "qcow2", "--encrypt", passphrase, images[1], "apply", "one")
    for image in images:
        ours("check", "-f", "qcow2", image)
        qemu("qemu-img", "check", *object_of(passphrase), "--image-opts", options_of(image, "qcow2"))
    assert theirs_to_raw(images[1], "qcow2", passphrase) == (tmp_path / "b.raw").read_bytes()


def by_python(volume_key, sector_size, data, *, encrypts):
    """aes-xts-plain64 over data, whose first sector is number 0; numbers count 512 bytes."""
    result = bytearray()
    for at in range(0, len(data), sector_size):
        cipher = Cipher(algorithms.AES(volume_key), modes.XTS((at // 512).to_bytes(16, "little")))
        worker = cipher.encryptor() if encrypts else cipher.decryptor()
        result += worker.update(data[at:at + sector_size]) + worker.finalize()
    return bytes(result)


def volume_key_of(image, secret):
    key = pathlib.Path(f"{image}.key")
    cryptsetup("luksDump", "--dump-volume-key", "--volume-key-file", key, "--key-file", secret, image)
    return key.read_bytes()


def payload_of(image):
    """Where the data of a LUKS2 volume begins, and the size of its sectors."""
    dump = cryptsetup("luksDump", image)
    found = re.search(r"offset: (\d+) \[bytes\]\n\tlength: \(whole device\)\n\tcipher: aes-xts-plain64\n\tsector: (\d+) \[bytes\]", dump)
    return int(found.group(1)), int(found.group(2))


@seeds(3)
@pytest.mark.parametrize("settings", [("--set", "key_size=256", *QUICK_ARGON2), ("--set", "sector_size=4096", *QUICK_ARGON2),
                                      ("--set", "kdf=pbkdf2", *QUICK)])
def test_cryptsetup_opens_our_luks2_and_its_data_is_what_it_should_be(tmp_path, secret, settings, seed):
    raw, image = tmp_path / "a.raw", tmp_path / "a.luks"
    random_raw(raw, random.Random(f"{settings} {seed}"), MIB)
    ours("convert", raw, image, "-O", "luks", "--target-encrypt", secret, *settings)
    cryptsetup("open", "--test-passphrase", "--key-file", secret, image)
    wrong = tmp_path / "wrong"
    wrong.write_bytes(secret.read_bytes() + b"!")
    cryptsetup("open", "--test-passphrase", "--key-file", wrong, image, status=2)
    assert "the secret opens none of 1 keyslots" in ours("convert", "--encrypt", wrong, "-f", "luks", image, tmp_path / "b.raw", status=1)
    payload, sector_size = payload_of(image)
    assert sector_size == (4096 if "sector_size=4096" in settings else 512)
    found = by_python(volume_key_of(image, secret), sector_size, image.read_bytes()[payload:], encrypts=False)
    assert found == raw.read_bytes() == ours_to_raw(image, "luks", secret)
    # A keyslot that cryptsetup adds is opened as well, and then there is one less.
    more = tmp_path / "more"
    more.write_bytes(b"another one")
    cryptsetup("luksAddKey", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", secret, image, more)
    assert json.loads(ours("info", "-o", "json", "--encrypt", more, image))["keyslots"] == 2
    cryptsetup("luksKillSlot", "--key-file", more, image, 0)
    assert ours_to_raw(image, "luks", more) == raw.read_bytes()
    assert "opens none" in ours("info", "--encrypt", secret, image, status=1)


@seeds(4)
@pytest.mark.parametrize("version,words", [("luks2", ("--pbkdf", "argon2id", "--pbkdf-memory", "1024", "--pbkdf-parallel", "2")),
                                           ("luks2", ("--pbkdf", "argon2i", "--pbkdf-memory", "64", "--sector-size", "4096")),
                                           ("luks2", ("--pbkdf", "pbkdf2", "--hash", "sha512", "--key-size", "256", "--sector-size", "512", "--luks2-metadata-size", "64k")),
                                           ("luks1", ("--hash", "sha1"))])
def test_we_open_what_cryptsetup_formats(tmp_path, secret, version, words, seed):
    image, size = tmp_path / "a.luks", MIB
    with open(image, "wb") as file:
        file.truncate(20 * MIB)
    force = ("--pbkdf-force-iterations", "4" if "argon2" in "".join(words) else "1000")
    cryptsetup("luksFormat", "--type", version, *words, *force, "--key-file", secret, image)
    assert json.loads(ours("info", "-o", "json", "--encrypt", secret, image))["encryption"] == version
    if version == "luks2":
        contents = random.Random(f"{words} {seed}").randbytes(size)
        payload, sector_size = payload_of(image)
        with open(image, "r+b") as file:
            file.seek(payload)
            file.write(by_python(volume_key_of(image, secret), sector_size, contents, encrypts=True))
        assert ours_to_raw(image, "luks", secret)[:size] == contents
    # What is damaged in one of the two headers is found, repaired, and fine for cryptsetup then.
    if version == "luks2":
        with open(image, "r+b") as file:
            file.seek(4096 + 20)
            file.write(b"!")
        assert "its sum is wrong" in ours("check", image, status=2)
        ours("check", "--repair", "-f", "luks", image)
        ours("check", image)
    cryptsetup("open", "--test-passphrase", "--key-file", secret, image)


def test_secrets_come_from_files_and_stay_there(tmp_path, secret):
    image = tmp_path / "a.luks"
    assert "luks needs a secret" in ours("create", image, "1M", status=1)
    assert "raw images are not encrypted" in ours("create", "--encrypt", secret, tmp_path / "a.raw", "1M", status=1)
    ours("create", "--encrypt", secret, image, "1M", *QUICK_ARGON2)
    assert "it is encrypted; state its secret" in ours("map", image, status=1)
    ours("create", tmp_path / "b.qcow2", "1M")
    assert "a secret is stated, but the qcow2 image is not encrypted" in ours("map", "--encrypt", secret, tmp_path / "b.qcow2", status=1)
    assert "No such file" in ours("map", "--encrypt", tmp_path / "none", image, status=1)
    # From a descriptor.
    with secret.open("rb") as file:
        done = subprocess.run([str(pathlib.Path(ours.__globals__["BULKHEAD"])), "image", "map", "--encrypt", f"/dev/fd/{file.fileno()}", str(image)],
                              pass_fds=(file.fileno(),), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "data" in done.stdout, done.stderr
    assert "cannot compress" in ours("convert", "-c", "-f", "luks", "--encrypt", secret, image, tmp_path / "c.qcow2",
                                     "--target-encrypt", secret, *QUICK, status=1)


def test_a_header_that_asks_for_too_much_is_refused_at_once(tmp_path, secret):
    image = tmp_path / "a.luks"
    ours("create", "--encrypt", secret, image, "1M", "--set", "version=1", *QUICK)
    with open(image, "r+b") as file:
        file.seek(208 + 4)
        file.write(b"\x7f\xff\xff\xff")
    assert "takes more time than is allowed" in ours("map", "--encrypt", secret, image, status=1)
