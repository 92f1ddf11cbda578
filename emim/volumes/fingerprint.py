"""What a file contains, as a short text: the same content is recognised under any name or path."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from emim.errors import Cancelled, EmimError
from emim.machine.looks import look_at_each

Memo = dict[str, tuple[int, int, str]]


def fingerprints(
    paths: Iterable[str], memo_file: Path, workers: int, should_stop: Callable[[], bool] | None = None
) -> dict[str, str]:
    """SHA-256 of each file, by its path.

    ``memo_file`` remembers the hash of a path with its size and time of change, so that an unchanged
    file is not read again. It may be deleted, damaged or overwritten by another process at any time.

    Raises:
        EmimError: for a file that cannot be read.
        Cancelled: when ``should_stop``, asked before each file that is read, said so.
    """

    names = {path: absolute(path) for path in paths}
    memo = _read_memo(memo_file)
    found = _unchanged(names, memo, should_stop)
    unread = [path for path in names if path not in found]

    def read(path: str) -> tuple[int, int, str]:
        if should_stop is not None and should_stop():
            raise Cancelled("Stopped while preparing the cases.")
        return _read(path)

    if unread:
        with ThreadPoolExecutor(workers) as pool:  # hashing releases Python's lock
            found |= zip(unread, pool.map(read, unread), strict=True)
        _write_memo(memo_file, _read_memo(memo_file) | {names[path]: found[path] for path in unread})
    return {path: found[path][2] for path in names}


def known_fingerprints(paths: Iterable[str], memo_file: Path) -> dict[str, str]:
    """SHA-256 of those files that ``memo_file`` knows and that have not changed; none is read."""
    names = {path: absolute(path) for path in paths}
    known = _unchanged(names, _read_memo(memo_file))
    return {path: entry[2] for path, entry in known.items()}


def _unchanged(names: dict[str, str], memo: Memo, should_stop: Callable[[], bool] | None = None) -> Memo:
    """By path, what ``memo`` knows, under absolute ``names``, of files that have not changed since."""
    known = [path for path, name in names.items() if name in memo]
    stamps = look_at_each(_stamp, known, should_stop)
    entries = ((path, stamp, memo[names[path]]) for path, stamp in zip(known, stamps, strict=True))
    return {path: entry for path, stamp, entry in entries if entry[:2] == stamp}


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


def _read(path: str) -> tuple[int, int, str]:
    try:
        stat = os.stat(path)
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
