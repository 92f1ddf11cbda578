"""Prepared cases, made once and kept: the cache between a cohort and a training run.

::

    FOLDER/emim-cache        marks the folder as ours
           files.json        SHA-256 of source files already read, with their size and time
           cases/<key>/      one prepared case
           building/<any>/   cases being written; leftovers of killed processes are swept up later

The key of a case is a hash of the *contents* of its files, of the settings and of the version of the
preprocessing, so moving or renaming data costs nothing and changing anything that matters never
serves stale arrays. A case is written elsewhere and renamed into place when complete: a process may
be killed at any moment, and several may build the same cache at once (the first to finish a case
wins, the others discard theirs).

Cases are built by threads, not processes: almost all the time is spent inside SimpleITK and numpy,
which release Python's lock (it is held for about a tenth of the time), so nothing needs pickling, a
script needs no ``__main__`` guard, and Slicer's Python behaves like any other.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from emim.cohort.case import Case, Cohort
from emim.config import PreprocessConfig
from emim.errors import Cancelled, EmimError
from emim.events import Events
from emim.folder_content import folder_content
from emim.machine.collector import collection_off
from emim.machine.itk_threads import prepare_itk
from emim.machine.looks import look_at_each
from emim.machine.memory import free_memory
from emim.replace import replace_file
from emim.volumes.cached_case import CachedCase, Crop, open_case, read_summary, write_case
from emim.volumes.fingerprint import fingerprints, known_fingerprints
from emim.volumes.io import read_header
from emim.volumes.preprocess import memory_needed, prepare_case, reference_path, working_grid

__all__ = [
    "CacheEntry",
    "CachedCase",
    "Crop",
    "build_cache",
    "cache_contents",
    "default_folder",
    "default_workers",
    "largest_size",
    "missing_cases",
    "remove_cache",
]

# Raise it with every change that alters a prepared array.
PREPROCESSING_VERSION = 2
MARKER = "emim-cache"
STALE_AFTER = 3600.0  # seconds; no case takes nearly as long to write
MOST_WORKERS = 8  # beyond, Python's lock and memory (a case needs some of its size several times) limit
MEMORY_SHARE = 0.7  # of the free memory, for all workers together
GIB = 2**30
_KEY = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class CacheEntry:
    """One prepared case in a cache: its key, the id it was made under, and its size on disk."""

    key: str
    case: str
    bytes: int


def default_folder() -> Path:
    """``$EMIM_CACHE``, else the user's cache folder of the platform."""
    if folder := os.environ.get("EMIM_CACHE"):
        return Path(folder).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "emim"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "emim"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "emim"


def build_cache(
    cohort: Cohort,
    config: PreprocessConfig,
    folder: Path | None = None,
    events: Events | None = None,
    workers: int | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[CachedCase]:
    """Prepare the cases of a cohort that are not in the cache yet; return all, in the cohort's order.

    Args:
        config: with a spacing (see :func:`emim.volumes.preprocess.resolve_spacing`).
        folder: of the cache; None: :func:`default_folder`.
        workers: threads; None: :func:`default_workers`, fewer where memory is short.
        should_stop: asked before each file and each case.

    Raises:
        EmimError: for a case that cannot be prepared (naming the file), too little room on the disk,
            or a folder that cannot hold a cache. Cases finished before stay in the cache.
        Cancelled: when ``should_stop`` said so.
    """
    events = events or Events()
    folder = (Path(folder) if folder is not None else default_folder()).absolute()
    _claim(folder)
    _sweep(folder)
    cases = folder / "cases"
    with collection_off():
        keys = _keys(cohort, config, folder, workers or default_workers(), should_stop)
        ready = _ready(cases, list(set(keys)), should_stop)
    missing = {key: case for key, case in zip(keys, cohort.cases, strict=True) if key not in ready}
    if missing:
        _build(missing, cohort.modalities, config, folder, events, workers, should_stop)
        ready |= {key: read_summary(cases / key) for key in missing}
    with collection_off():
        return [
            open_case(f"{cases}/{key}", ready[key], case.id, case.subject, cohort.modalities)
            for key, case in zip(keys, cohort.cases, strict=True)
        ]


def _ready(
    cases: Path, keys: Sequence[str], should_stop: Callable[[], bool] | None = None
) -> dict[str, dict]:
    """By key, the summaries of the cases that are there."""
    summaries = look_at_each(read_summary, [f"{cases}/{key}" for key in keys], should_stop)
    return {key: summary for key, summary in zip(keys, summaries, strict=True) if summary}


def missing_cases(cohort: Cohort, config: PreprocessConfig, folder: Path | None = None) -> list[Case]:
    """The cases that :func:`build_cache` would have to prepare, told without reading or writing images."""
    folder = Path(folder) if folder is not None else default_folder()
    files = {c.id: _files(c, cohort.modalities) for c in cohort.cases}
    hashes = known_fingerprints((p for paths in files.values() for p in paths), folder / "files.json")

    known = [case for case in cohort.cases if set(files[case.id]) <= hashes.keys()]
    keys = {case.id: _key(case, cohort.modalities, config, hashes) for case in known}
    ready = _ready(folder / "cases", list(set(keys.values())))
    return [case for case in cohort.cases if keys.get(case.id) not in ready]


def cache_contents(folder: Path | None = None) -> list[CacheEntry]:
    """The complete cases of a cache; none when the folder does not exist or is not a cache."""
    folder = Path(folder) if folder is not None else default_folder()
    entries = []
    for path in _case_folders(folder):
        if summary := read_summary(path):
            entries.append(CacheEntry(path.name, summary["case"], sum(summary["files"].values())))
    return entries


def remove_cache(folder: Path | None = None) -> int:
    """Delete what EMIM made in a cache folder, and the folder if nothing else is in it.

    Returns:
        bytes of the cases deleted.

    Raises:
        EmimError: when the folder is not a cache of EMIM, or cannot be deleted.
    """
    folder = Path(folder) if folder is not None else default_folder()
    if not (folder / MARKER).is_file():
        raise EmimError("This is not a cache of EMIM.", folder, "Nothing was deleted; check the path.")
    freed = sum(entry.bytes for entry in cache_contents(folder))
    try:
        for path in _case_folders(folder):
            shutil.rmtree(path)
        shutil.rmtree(folder / "building", ignore_errors=True)
        (folder / "files.json").unlink(missing_ok=True)
        (folder / MARKER).unlink()
        for path in (folder / "cases", folder):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
    except OSError as error:
        raise EmimError(
            f"The cache cannot be deleted completely: {error.strerror}.",
            error.filename or folder,
            "End the runs that use it, then repeat.",
        ) from error
    return freed


def _build(
    missing: dict[str, Case],
    modalities: tuple[str, ...],
    config: PreprocessConfig,
    folder: Path,
    events: Events,
    workers: int | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Build the missing cases; the first one alone, to learn how much the crop to the foreground saves."""
    bounds = {key: largest_size(case, modalities, config) for key, case in missing.items()}
    (first, first_case), *rest = missing.items()
    events.progress(0, len(missing), "case", f"preparing {first_case.id}")
    _build_case(first, first_case, modalities, config, folder)
    events.progress(1, len(missing), "case", first_case.id)
    share = sum(read_summary(folder / "cases" / first)["files"].values()) / bounds[first]
    needed = share * sum(bounds[key] for key, _ in rest)
    total = needed + share * bounds[first]
    events.status(f"Preparing {len(missing)} cases: about {total / GIB:.2f} GiB in {folder}.")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise EmimError(
            f"Prepared cases need about {needed / GIB:.1f} GiB more; the disk has {free / GIB:.1f} GiB free.",
            folder,
            "Free some room, or set the environment variable EMIM_CACHE to a folder on a larger disk.",
        )
    if workers is None:
        largest = missing[max(bounds, key=bounds.get)]
        workers = default_workers(memory_needed(largest, modalities, config))
    prepare_itk()
    pool = ThreadPoolExecutor(workers)
    try:
        running = {
            pool.submit(_build_case, key, case, modalities, config, folder): case for key, case in rest
        }
        while running:
            if should_stop is not None and should_stop():
                raise Cancelled("Stopped while preparing the cases.")
            finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
            for future in finished:
                case = running.pop(future)
                future.result()
                events.progress(len(missing) - len(running), len(missing), "case", case.id)
    finally:
        pool.shutdown(cancel_futures=True)


def _build_case(
    key: str, case: Case, modalities: tuple[str, ...], config: PreprocessConfig, folder: Path
) -> None:
    temporary = folder / "building" / f"{key}-{uuid.uuid4().hex[:8]}"
    final = folder / "cases" / key
    try:
        prepared = prepare_case(case, modalities, config)
        temporary.mkdir(parents=True)
        write_case(temporary, prepared, config.clip, case.id)
        _move_into_place(temporary, final)
    except EmimError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "Free some room, or set the environment variable EMIM_CACHE to another disk."
            raise EmimError(f"The disk is full; case {case.id} was not cached.", folder, hint) from error
        where = next(iter(case.images.values()), None)
        raise EmimError(
            f"Case {case.id} could not be prepared: {type(error).__name__}: {error}",
            where,
            "Leave the case out, or export its files again.",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move_into_place(temporary: Path, final: Path) -> None:
    for _ in range(3):
        try:
            # Windows does not rename to a folder that is there, however long one waits.
            (os.rename if final.exists() else replace_file)(temporary, final)
            return
        except OSError:
            if read_summary(final):  # another process was faster
                return
            if not final.exists():
                raise
            # A damaged case is in the way. It moves aside first: deleting is not atomic.
            aside = temporary.with_name(f"damaged-{uuid.uuid4().hex[:8]}")
            replace_file(final, aside)
            shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"{final} cannot be replaced")


def _keys(
    cohort: Cohort,
    config: PreprocessConfig,
    folder: Path,
    workers: int,
    should_stop: Callable[[], bool] | None,
) -> list[str]:
    paths = [p for c in cohort.cases for p in _files(c, cohort.modalities)]
    hashes = fingerprints(paths, folder / "files.json", workers, should_stop)
    return [_key(case, cohort.modalities, config, hashes) for case in cohort.cases]


def _files(case: Case, modalities: tuple[str, ...]) -> list[str]:
    images = [case.images[m] for m in modalities if m in case.images]
    return images + ([case.label] if case.label else [])


def _key(case: Case, modalities: tuple[str, ...], config: PreprocessConfig, hashes: dict[str, str]) -> str:
    paths = [case.images.get(m) for m in modalities]
    content = {
        "version": PREPROCESSING_VERSION,
        "images": [hashes[p] if p else None for p in paths],
        "reference": paths.index(reference_path(case, modalities, config)),
        "label": hashes[case.label] if case.label else None,
        "spacing": config.spacing,
        "clip": config.clip,
    }
    if case.label and case.recode:
        content["recode"] = case.recode
    return hashlib.sha256(_KEY.encode(content).encode()).hexdigest()[:32]


def largest_size(case: Case, modalities: tuple[str, ...], config: PreprocessConfig) -> int:
    """Bytes of a case that would not be cropped at all, from the reference's header."""
    size = working_grid(read_header(reference_path(case, modalities, config)).grid, config).size
    images = sum(m in case.images for m in modalities)
    return size[0] * size[1] * size[2] * (2 * images + 1 + (2 if case.label else 0))


def _claim(folder: Path) -> None:
    """Make ``folder`` a cache, unless something else is in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MARKER).exists():
            if folder_content(folder) and not (folder / MARKER).exists():  # not made just now either
                raise EmimError(
                    "The folder for prepared cases is not empty and is not a cache of EMIM.",
                    folder,
                    "Name a new or empty folder.",
                )
            (folder / MARKER).touch()
        for name in ("cases", "building"):
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise EmimError(
            f"The folder for prepared cases cannot be used: {error.strerror}.",
            folder,
            "Name another one, or set the environment variable EMIM_CACHE.",
        ) from error


def _sweep(folder: Path) -> None:
    """Delete what killed processes left half-written; young folders may belong to a living one."""
    for path in (folder / "building").iterdir():
        try:
            old = time.time() - path.stat().st_mtime > STALE_AFTER
        except OSError:  # its owner was just done with it
            continue
        if old:
            shutil.rmtree(path, ignore_errors=True)


def _case_folders(folder: Path) -> list[Path]:
    cases = folder / "cases"
    if not (folder / MARKER).is_file() or not cases.is_dir():
        return []
    return sorted(p for p in cases.iterdir() if p.is_dir() and re.fullmatch("[0-9a-f]{32}", p.name))


def default_workers(bytes_each: int = 0) -> int:
    """Threads that prepare cases: as many as there are processors and free memory for, at most 8.

    Args:
        bytes_each: what one needs (:func:`emim.volumes.preprocess.memory_needed`).
    """
    workers = min(MOST_WORKERS, _processors())
    free = free_memory()
    if not bytes_each or free is None:
        return workers
    return max(1, min(workers, int(MEMORY_SHARE * free / bytes_each)))


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # fewer than the machine has, in a container or a job
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
