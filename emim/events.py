"""What a running command says, as typed events.

Every event is one JSON object with ``v`` (schema version), ``type`` and ``time`` (Unix seconds), and:

=========== =====================================================================================
``status``   ``text``: what is being done now
``progress`` ``done``, ``total``, ``unit``, ``text``, ``rate`` (units/s), ``seconds_left`` (or null)
``metric``   ``step``, ``split`` ("train" or "validation") and any number of named values
``preview``  ``path``: a file or folder that is new or has changed, ``kind`` and what the kind needs
``warning``  ``what``, ``where``, ``hint``
``error``    ``what``, ``where``, ``hint``; the command ends after it
``case``     one case of ``segment --cohort``, ``classify --cohort`` or ``evaluate --segment`` has ended: its
             result, or ``error``; of several processes those of the others come at the end
``result``   what the command produced (paths, numbers); the last event of a successful command
=========== =====================================================================================

Kinds of preview, each of one validation case, sent at every validation:

========================== ========================================================================
``reconstruction``         ``path``: arrays (.npz) of pre-training for the report
``reconstruction_volumes`` ``path``: folder; ``files``: ``original``, ``masked``, ``reconstructed``, each
                           modality to NIfTI file; ``case``, ``step``
``segmentation``           ``path``: arrays (.npz) of fine-tuning for the report
``segmentation_volumes``   ``path``: folder; ``files``: NIfTI files ``image`` (first modality),
                           ``prediction``, ``reference`` (label maps); ``case``, ``step``
========================== ========================================================================

Values of the validation metric: of segmentation ``dice`` and ``dice_per_structure``; of classification
``accuracy``, ``balanced_accuracy``, ``auc``, ``auc_interval`` ([low, high] or null), ``cross_entropy``,
``ece``, ``recall_per_class`` and ``auc_per_class`` (class to number or null), ``cases``, and ``confusion``, a
row a true class, in the order of ``classification.classes`` of ``config.json``.

Results of some commands:

``finetune``
    ``run``, ``model``, ``step``, ``report``, ``seconds``; ``validation_dice``, or of classification
    ``validation_accuracy``, ``_balanced_accuracy``, ``_auc``, ``_auc_interval`` and ``_cross_entropy``
``classify``
    see :func:`emim.inference.classify.classify`, and ``output``; with ``--cohort``: ``output``,
    ``classified`` (a count), ``failed`` (ids) and ``cases``, one such result each
``scan``
    ``cases``, ``modalities``, ``segments`` (those that labels name), ``rows``
    (:func:`emim.cohort.table.json_rows`), ``ignored``
``runs``
    ``runs``, each with the fields of :class:`emim.run_state.RunState`
``evaluate``
    the fields of :meth:`emim.evaluation.segmentation.Evaluation.to_dict`; with ``--model`` among them
    ``seen``, the fields of :class:`emim.evaluation.seen.Seen`; with ``--segment`` also ``images`` (case id to
    modality to file) and ``failures`` (case id to why it could not be segmented)
``evaluate --subsets``
    the fields of :meth:`emim.evaluation.by_subset.SubsetEvaluation.to_dict`
``impute``
    what :func:`emim.imputation.impute.impute` returns
``pretrain --dry-run``, ``finetune --dry-run``
    the fields of :class:`emim.training.estimate.Estimate`, and ``preset``

The same lines go to ``events.jsonl`` of a run folder and, with ``--json``, to standard output.
Values that are not finite are written as null, because JSON has no NaN.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

SCHEMA_VERSION = 1
# Environment variable: arguments of ``python -m emim`` as JSON, for names that a launcher would garble.
ARGUMENTS = "EMIM_ARGUMENTS"


def to_json(value: Any) -> Any:
    """``value`` with everything JSON cannot hold replaced: paths by text, NaN and infinity by None."""
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays
        return to_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"an event cannot hold a {type(value).__name__}")


def nobody_reads(error: OSError) -> bool:
    """Whether ``error``, of writing to a pipe, says that its reader is gone; Windows calls that EINVAL."""
    invalid = os.name == "nt" and error.errno == errno.EINVAL and error.filename is None
    return invalid or isinstance(error, BrokenPipeError)


class Events:
    """Sends events to a file, to standard output as JSON lines, or to a person at a terminal.

    Args:
        json_lines: print JSON lines instead of text and progress bars.
        stream: where the person or the calling process reads; ``None`` is silent.
    """

    def __init__(self, json_lines: bool = False, stream: TextIO | None = None) -> None:
        self.json_lines = json_lines
        self.stream = stream
        self.ended = False  # the result was sent
        self._file: TextIO | None = None
        self._bar = None
        self._progress: tuple[tuple[str, int], float, int] | None = None

    def record_to(self, file: str | Path) -> None:
        """Append all further events to ``file`` as well (``events.jsonl`` of a run folder)."""
        self.stop_recording()
        path = Path(file)
        if path.exists() and path.stat().st_size:
            with open(path, "rb+") as old:  # a killed process may have left half a line
                old.seek(-1, 2)
                if old.read(1) != b"\n":
                    old.write(b"\n")
        # Backslashes are JSON's way to write the names of files that are not UTF-8, too.
        self._file = open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  for the run

    def status(self, text: str) -> None:
        self._send("status", text=text)

    def progress(self, done: int, total: int, unit: str = "step", text: str = "") -> None:
        """Report that ``done`` of ``total`` units are finished; the rate counts from the first call."""
        now = time.monotonic()
        if self._progress is None or self._progress[0] != (unit, total) or done < self._progress[2]:
            self._progress = ((unit, total), now, done)
        _, since, first = self._progress
        rate = (done - first) / (now - since) if now > since and done > first else None
        left = (total - done) / rate if rate else None
        if done >= total:
            self._progress = None
        self._send("progress", done=done, total=total, unit=unit, text=text, rate=rate, seconds_left=left)

    def metric(self, step: int, split: str, **values: Any) -> None:
        self._send("metric", step=step, split=split, **values)

    def preview(self, path: str | Path, kind: str, **fields: Any) -> None:
        self._send("preview", path=path, kind=kind, **fields)

    def warning(self, what: str, where: str | Path | None = None, hint: str | None = None) -> None:
        self._send("warning", what=what, where=where, hint=hint)

    def error(self, what: str, where: str | Path | None = None, hint: str | None = None) -> None:
        self._send("error", what=what, where=where, hint=hint)

    def case(self, **fields: Any) -> None:
        """Report how one of many cases has ended, as soon as it is known."""
        self._send("case", **fields)

    def result(self, **fields: Any) -> None:
        self._send("result", **fields)
        self.ended = True

    def stop_recording(self) -> None:
        """Further events are of something else than what the file of :meth:`record_to` tells of."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        self._end_bar()
        self.stop_recording()

    def _send(self, kind: str, /, **fields: Any) -> None:
        event = {"v": SCHEMA_VERSION, "type": kind, "time": round(time.time(), 3), **to_json(fields)}
        line = json.dumps(event, ensure_ascii=False) + "\n"
        if self._file is not None:
            self._file.write(line)
            self._file.flush()
        if self.stream is None:
            return
        try:
            if self.json_lines:
                self.stream.write(line)
                self.stream.flush()
            else:
                self._show(kind, event)
        except OSError as error:
            if not nobody_reads(error):
                raise
            self.stream = None  # the run itself goes on
        except ValueError:
            if not self.stream.closed:
                raise
            self.stream = None

    def _show(self, kind: str, event: dict[str, Any]) -> None:
        if kind == "progress":
            self._show_progress(event)
            return
        if kind in ("metric", "preview", "case", "result"):  # commands print their own tables for a person
            return
        self._end_bar()
        if kind == "status":
            text = event["text"]
        else:
            text = f"{kind}: {event['what']}"
            text += f"\n  where: {event['where']}" if event.get("where") else ""
            text += f"\n  hint:  {event['hint']}" if event.get("hint") else ""
        print(text, file=self.stream, flush=True)

    def _show_progress(self, event: dict[str, Any]) -> None:
        if not getattr(self.stream, "isatty", lambda: False)():
            return
        from tqdm import tqdm

        if self._bar is None or self._bar.total != event["total"] or event["done"] < self._bar.n:
            self._end_bar()
            self._bar = tqdm(
                total=event["total"],
                initial=event["done"],
                unit=event["unit"],
                file=self.stream,
                dynamic_ncols=True,
            )
        self._bar.set_postfix_str(event["text"], refresh=False)
        self._bar.update(event["done"] - self._bar.n)
        if event["done"] >= event["total"]:
            self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def to_terminal(json_lines: bool = False) -> Events:
    """Events for the command line: JSON lines to standard output, or text to standard error."""
    for stream in (sys.stdout, sys.stderr):  # answers of commands go to the former
        if hasattr(stream, "reconfigure"):  # a pipe on Windows has a code page that lacks most names
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    return Events(json_lines, sys.stdout if json_lines else sys.stderr)
