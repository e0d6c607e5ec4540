#!/usr/bin/env python3
"""Unpacks the ELF kernel out of a bzImage: extract_vmlinux.py VMLINUZ OUTPUT.

The payload's place is in the setup header (Linux's Documentation/arch/x86/boot.rst: payload_offset, payload_length).
"""
import lzma
import pathlib
import struct
import subprocess
import sys


def payload_of(image):
    if image[0x202:0x206] != b"HdrS":
        sys.exit("not a bzImage: no 'HdrS' at 0x202")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    return image[start:start + length]


def decompress(payload):
    # The last four bytes are the size of what comes out, after the compressed stream.
    size, = struct.unpack_from("<I", payload, len(payload) - 4)
    if payload[:6] == b"\xfd7zXZ\x00":
        plain = lzma.LZMADecompressor().decompress(payload)
    elif payload[:4] == b"\x02\x21\x4c\x18":
        plain = subprocess.run(["lz4", "-d", "-c"], input=payload[:-4], stdout=subprocess.PIPE, check=True).stdout
    else:
        sys.exit(f"payload compressed in a way this tool does not know: {payload[:6].hex()}")
    if len(plain) != size:
        sys.exit(f"payload gave {len(plain)} bytes where the header promises {size}")
    return plain


def main():
    source, target = map(pathlib.Path, sys.argv[1:3])
    kernel = decompress(payload_of(source.read_bytes()))
    if kernel[:4] != b"\x7fELF":
        sys.exit(f"{source}: the payload is not an ELF file")
    target.write_bytes(kernel)


if __name__ == "__main__":
    main()
