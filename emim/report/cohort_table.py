"""The cohort as a table: cases × modalities, with what is missing and what is wrong."""

from __future__ import annotations

from typing import Any

from emim.report.markup import text
from emim.report.record import RunRecord
