#!/usr/bin/env python3
"""Warns about sources of more than 600 lines and fails above 1000. Tables (*_table*, *.inc) are left out."""
import pathlib
import sys

WARN, FAIL = 600, 1000


def main():
    failed = False
    for path in sorted(pathlib.Path(sys.argv[1]).rglob("*")):
        if path.suffix not in (".h", ".cc") or "_table" in path.name:
            continue
        lines = len(path.read_text().splitlines())
        if lines > WARN:
            print(f"{path}: {lines} lines{', the limit is %d' % FAIL if lines > FAIL else ''}")
        failed |= lines > FAIL
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
