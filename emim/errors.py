"""The two ways a command ends early on purpose.

Exit codes of the command line: 0 done, 1 unexpected failure, 2 bad input (:class:`EmimError`),
3 cancelled (:class:`Cancelled`), 4 done, but for cases or runs that failed, which the result names.
"""

from __future__ import annotations

from pathlib import Path

EXIT_SOME_FAILED = 4


class EmimError(Exception):
    """Something the user can put right.

    Args:
        what: what happened, one sentence.
        where: the file, folder or option it happened to.
        hint: what to do about it.
    """

    def __init__(self, what: str, where: str | Path | None = None, hint: str | None = None) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint:  {self.hint}")
        return "\n".join(lines)

    def __reduce__(self):
        # Worker processes send errors back by pickling; the default would pass only the joined text.
        return type(self), (self.what, self.where, self.hint)


class Cancelled(Exception):
    """The user asked the command to stop; what was reached is saved and can be resumed."""
