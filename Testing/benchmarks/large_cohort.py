"""Start-up and memory of a run on 100,000 cases, simulated: few real cases under many names.

    python Testing/benchmarks/large_cohort.py [--cases 100000]

Some synthetic heads are drawn and prepared. A folder of links makes of them an index of so many cases, each
with files of its own name. Measured, with everything in the cache, is what a run does before its first
step (look at every source file and make the keys, open every prepared case), the memory that the list of
cases takes, and whether memory grows while batches are drawn. Reading the images to scan the cohort is not
part of it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from measure.machine import machine_line

from emim.cohort.case import Case, Cohort
from emim.cohort.scan import scan
from emim.config import PretrainConfig, override, with_preset
from emim.machine.collector import collection_off
from emim.phantom.generate import generate
from emim.training.augmentation import for_pretraining
from emim.training.sampling import PretrainBatches
from emim.volumes.cache import build_cache
from emim.volumes.cached_case import CachedCase, open_case, read_summary
from emim.volumes.preprocess import resolve_spacing

REAL = 3
BATCHES = 600


def main(count: int) -> None:
    print(machine_line())
    with tempfile.TemporaryDirectory(prefix="emim-large-") as folder:
        measure(Path(folder), count)


def measure(work: Path, count: int) -> None:
    heads = scan(generate(work / "heads", subjects=REAL, labelled=0, spacing=4.0)).cohort
    config = override(with_preset(PretrainConfig(), "tiny"), {"train.batch": 2, "train.crop": 32})
    preprocess = resolve_spacing(heads, config.preprocess)
    prepared = build_cache(heads, preprocess, work / "cache")
    cohort = many(heads, work / "index", count)

    seconds = timed(lambda: build_cache(cohort, preprocess, work / "cache"))[1]
    print(f"index of {count:,} cases, {files(cohort):,} files; first time, reading all: {seconds:.1f} s")
    _, keys = timed(lambda: build_cache(cohort, preprocess, work / "cache"))

    # Equal contents have one key, so that read but a few summaries: now as many as there would be.
    folders = links(prepared, work / "prepared", count)
    _, summaries = timed(lambda: read_all(folders))
    cases = open_all(folders, prepared[0].modalities)
    size = bytes_of(lambda: open_all(folders[:1000], prepared[0].modalities)) / len(folders[:1000])
    print(
        f"start with everything cached: {keys + summaries:.1f} s, of which {keys:.1f} s to look at the "
        f"files, make the keys and open the cases, {summaries:.1f} s to read their summaries"
    )
    print(f"memory of the list: {size * count / 2**20:.0f} MiB, {size:.0f} bytes a case")

    batches = PretrainBatches(cases, config.train, for_pretraining(), config.mask)
    for step in range(20):
        batches[step]
    at = []
    begun = time.perf_counter()
    for step in range(20, BATCHES):
        batches[step]
        if step % (BATCHES // 6) == 0:
            at.append(resident() / 2**20)
    each = 1000 * (time.perf_counter() - begun) / (BATCHES - 20) / config.train.batch
    print(f"drawing crops of 32³: {each:.1f} ms each; resident MiB: {', '.join(f'{m:.0f}' for m in at)}")


def many(heads: Cohort, folder: Path, count: int) -> Cohort:
    """The real cases over and over, each time under links of another name."""
    folder.mkdir()
    cases = []
    for i in range(count):
        case = heads.cases[i % REAL]
        name = f"case-{i:06d}"
        (folder / name).symlink_to(Path(next(iter(case.images.values()))).parent, target_is_directory=True)
        images = {m: str(folder / name / Path(p).name) for m, p in case.images.items()}
        cases.append(Case(name, name, images, None))
    return Cohort(heads.modalities, tuple(cases))


def links(prepared: list[CachedCase], folder: Path, count: int) -> list[Path]:
    """As many folders of prepared cases as there would be."""
    folder.mkdir()
    folders = [folder / f"{i:032x}" for i in range(count)]
    for i, path in enumerate(folders):
        path.symlink_to(prepared[i % REAL].folder, target_is_directory=True)
    return folders


def read_all(folders: list[Path]) -> list[dict]:
    with collection_off():  # as the cache does
        return [read_summary(str(path)) for path in folders]


def open_all(folders: list[Path], modalities: tuple[str, ...]) -> list[CachedCase]:
    return [
        open_case(path, read_summary(path), f"case-{i:06d}", f"case-{i:06d}", modalities)
        for i, path in enumerate(folders)
    ]


def bytes_of(make: Callable[[], object]) -> int:
    """Memory of what ``make`` returns."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    made = make()
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    del made
    return size


def files(cohort: Cohort) -> int:
    return sum(len(c.images) for c in cohort.cases)


def timed(work):
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun


def resident() -> int:
    """Bytes of memory this process holds now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    main(parser.parse_args().cases)
