"""What a file contains, as a short text: the same content is recognised under any name or path."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from emim.errors import Cancelled, EmimError

AT_ONCE = 500
Memo = dict[str, tuple[int, int, str]]


def fingerprints(
    paths: Iterable[str], memo_file: Path, workers: int, should_stop: Callable[[], bool] | None = None
) -> dict[str, str]:
    """SHA-256 of each file, by its path.

    ``memo_file`` remembers the hash of a path with its size and time of change, so that an unchanged
    file is not read again. It may be deleted, damaged or overwritten by another process at any time.

    Raises:
        EmimError: for a file that cannot be read.
        Cancelled: when ``should_stop``, asked before each file, said so.
    """

    def entries(some: list[str]) -> list[tuple[int, int, str]]:
        found = []
        for path in some:
            if should_stop is not None and should_stop():
                raise Cancelled("Stopped while preparing the cases.")
            found.append(_entry(path, memo.get(names[path])))
        return found

    names = {path: absolute(path) for path in paths}
    memo = _read_memo(memo_file)
    unread = [p for p, name in names.items() if name not in memo]
    # Files that are known only cost a look each: many at a time, or the pool would cost more than they do.
    known = [p for p, name in names.items() if name in memo]
    tasks = [known[i : i + AT_ONCE] for i in range(0, len(known), AT_ONCE)] + [[p] for p in unread]
    with ThreadPoolExecutor(workers) as pool:  # hashing and looking release the GIL
        found = dict(zip([*known, *unread], chain.from_iterable(pool.map(entries, tasks)), strict=True))
    fresh = {names[path]: entry for path, entry in found.items()}
    if any(memo.get(path) != entry for path, entry in fresh.items()):
        _write_memo(memo_file, _read_memo(memo_file) | fresh)
    return {path: found[path][2] for path in names}


def known_fingerprints(paths: Iterable[str], memo_file: Path) -> dict[str, str]:
    """SHA-256 of those files that ``memo_file`` knows and that have not changed; none is read."""
    memo = _read_memo(memo_file)
    known = {}
    for path in paths:
        entry = memo.get(absolute(path))
        if entry and entry[:2] == _stamp(path):
            known[path] = entry[2]
    return known


def absolute(path: str) -> str:
    """As :func:`os.path.abspath`, of which most paths need nothing."""
    plain = path[:1] == os.sep and "//" not in path and "/." not in path and path[-1] != os.sep
    return path if os.name == "posix" and plain else os.path.abspath(path)


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _entry(path: str, known: tuple[int, int, str] | None) -> tuple[int, int, str]:
    try:
        stat = os.stat(path)
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
