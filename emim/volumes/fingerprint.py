"""What a file contains, as a short text: the same content is recognised under any name or path."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emim.errors import EmimError

Memo = dict[str, tuple[int, int, str]]


def fingerprints(paths: Iterable[str], memo_file: Path, workers: int) -> dict[str, str]:
    """SHA-256 of each file, by its path.

    ``memo_file`` remembers the hash of a path with its size and time of change, so that an unchanged
    file is not read again. It may be deleted, damaged or overwritten by another process at any time.

    Raises:
        EmimError: for a file that cannot be read.
    """
    paths = list(dict.fromkeys(paths))
    memo = _read_memo(memo_file)
    with ThreadPoolExecutor(workers) as pool:  # hashing releases the GIL
        entries = list(pool.map(lambda path: _entry(path, memo), paths))
    fresh = dict(zip(map(os.path.abspath, paths), entries, strict=True))
    if any(memo.get(path) != entry for path, entry in fresh.items()):
        _write_memo(memo_file, _read_memo(memo_file) | fresh)
    return {path: entry[2] for path, entry in zip(paths, entries, strict=True)}


def _entry(path: str, memo: Memo) -> tuple[int, int, str]:
    try:
        stat = os.stat(path)
        known = memo.get(os.path.abspath(path))
        if known and known[:2] == (stat.st_size, stat.st_mtime_ns):
            return known
        with open(path, "rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise EmimError(f"The file cannot be read: {error.strerror}.", path) from error
    return stat.st_size, stat.st_mtime_ns, digest.hexdigest()


def _read_memo(file: Path) -> Memo:
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {str(p): (int(size), int(changed), str(sha)) for p, (size, changed, sha) in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_memo(file: Path, memo: Memo) -> None:
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.write_text(json.dumps(memo, ensure_ascii=False), encoding="utf-8")
        os.replace(temporary, file)
    except OSError:  # only a shortcut is lost
        temporary.unlink(missing_ok=True)
