#!/usr/bin/env python3
"""Fails when a source includes a module that src/FLOORS does not allow, or a module is not named there."""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def read_floors(path):
    floors = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, _, below = line.partition(":")
        below = below.split()
        if below != ["*"]:
            for other in below:
                if other not in floors:
                    sys.exit(f"{path}:{number}: '{name}' names '{other}', which does not stand below it")
        floors[name] = (set(floors) if below == ["*"] else set(below)) | {name}
    return floors


def main():
    root = pathlib.Path(sys.argv[1])
    floors = read_floors(root / "FLOORS")
    errors = []
    file_count = 0
    for path in sorted(root.rglob("*")):
        if path.suffix not in (".h", ".cc", ".S", ".inc"):
            continue
        file_count += 1
        module = path.relative_to(root).parts[0]
        if module not in floors:
            errors.append(f"{path}: module '{module}' has no line in FLOORS")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            target = match.group(1).split("/")[0]
            if "/" not in match.group(1) or target not in floors:
                errors.append(f"{path}:{number}: '{match.group(1)}' is not a path from the include root")
            elif target not in floors[module]:
                errors.append(f"{path}:{number}: '{module}' may not include '{target}'")
    print("\n".join(errors) if errors else f"{file_count} files keep to their floors")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
