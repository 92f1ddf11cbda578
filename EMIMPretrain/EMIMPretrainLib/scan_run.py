"""Scanning a cohort in the background."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .cohort_table import CohortTable
from .core_task import CoreTask


class ScanRun(CoreTask):
    """Reads every file of a cohort; its answer is :attr:`table`.

    Args:
        source: folder or datalist.
        patterns: name patterns of the user by modality; for folders only.
        labelPattern: name pattern of label files; empty: usual names.
    """

    def __init__(
        self,
        source: str | Path,
        patterns: Mapping[str, Sequence[str]] | None = None,
        labelPattern: str = "",
        onEvent: Callable[[dict], None] | None = None,
        onFinished: Callable[[ScanRun], None] | None = None,
    ) -> None:
        self.source = str(source)
        self.patterns = {m: list(p) for m, p in (patterns or {}).items()}
        self.table: CohortTable | None = None
        arguments = ["scan", self.source]
        for modality, texts in self.patterns.items():
            for text in texts:
                arguments += ["--pattern", f"{modality}={text}"]
        if labelPattern:
            arguments += ["--label-pattern", labelPattern]
        self._folder = Path(tempfile.mkdtemp(prefix="emim-scan-"))
        arguments += ["--out", str(self._folder)]
        super().__init__(arguments, onEvent, onFinished)

    def answer(self) -> CohortTable | None:
        return self.table

    def read(self, result: dict[str, Any]) -> None:
        # What it found out about each file, so that a run need not read them all again.
        found = json.loads((self._folder / "cohort.json").read_text(encoding="utf-8"))
        details = {case["id"]: case for case in found["cases"]}
        self.table = CohortTable.fromScan(result, self.source, self.patterns, details)

    def clean(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
