#!/usr/bin/env python3
"""Write into each CMakeLists.txt the scripts and resources that lie beside it.

Slicer's macros install only what is listed: a forgotten file works in a source checkout and is missing
from the package. Run this after adding, renaming or removing a file; the test suite checks the result.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("emim", "EMIMLib", "EMIMPretrain", "EMIMSegment")
RESOURCES = {".ui", ".png", ".svg", ".json", ".txt", ".qss"}


def listed(folder: Path) -> tuple[list[str], list[str]]:
    """Scripts and resources of ``folder``, relative to it."""
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    files = [p for p in files if "__pycache__" not in p.parts and p.name != "CMakeLists.txt"]
    scripts = [p.as_posix() for p in files if p.suffix == ".py" and p.parts[0] != "Testing"]
    resources = [p.as_posix() for p in files if "Resources" in p.parts and p.suffix in RESOURCES]
    return scripts, resources


def updated(text: str, folder: Path) -> str:
    """``text`` of a CMakeLists.txt with its two lists replaced."""
    for name, files in zip(("MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"), listed(folder), strict=True):
        body = "".join(f"\n  {file}" for file in files)
        text = re.sub(rf"set\({name}[^)]*\)", f"set({name}{body}\n  )", text)
    return text


def main() -> int:
    stale = []
    for part in PARTS:
        file = ROOT / part / "CMakeLists.txt"
        old = file.read_text(encoding="utf-8")
        new = updated(old, file.parent)
        if new != old:
            stale.append(str(file.relative_to(ROOT)))
            if "--check" not in sys.argv:
                file.write_text(new, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"Out of date: {', '.join(stale)}. Run tools/list-scripts.py.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
