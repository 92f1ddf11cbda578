"""Read what another process appends to a file, line by line, with bounded memory."""

from __future__ import annotations

from pathlib import Path

BLOCK = 4 * 2**20  # bytes read in one call, so that a flood does not freeze the caller
BACKLOG = 64 * 2**20  # bytes behind which the reader skips ahead
LONGEST = 64 * 2**20  # bytes of one line; the table of a large cohort is one line


class OutputTail:
    """The lines that appear in a growing file.

    Args:
        file: may not exist yet.

    Bytes that are no UTF-8 become replacement characters; a line ends with ``\\n``, ``\\r\\n`` or ``\\r``
    (progress bars).
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.drained = True
        self._position = 0
        self._rest: list[bytes] = []
        self._held = 0

    def read(self, final: bool = False) -> list[str]:
        """New whole lines. With ``final`` an unfinished last line counts too, once all is read.

        ``drained`` tells afterwards whether the end of the file was reached.
        """
        lines, content = self._skipAhead(), self._block()
        self.drained = len(content) < BLOCK
        if content:
            # Joining only at a line's end keeps a very long line from being copied again and again.
            whole, newline, rest = content.replace(b"\r", b"\n").rpartition(b"\n")
            if newline:
                lines += self._flush(whole)
            self._rest.append(rest)
            self._held += len(rest)
            if self._held > LONGEST:
                lines += self._flush(b"")
        if final and self.drained:
            lines += self._flush(b"")
        return lines

    def _block(self) -> bytes:
        try:
            with open(self.file, "rb") as file:
                file.seek(self._position)
                content = file.read(BLOCK)
        except FileNotFoundError:
            return b""
        self._position += len(content)
        return content

    def _flush(self, whole: bytes) -> list[str]:
        content = b"".join([*self._rest, whole])
        self._rest, self._held = [], 0
        text = content.decode("utf-8", errors="replace")
        return [line for line in text.split("\n") if line.strip()]

    def _skipAhead(self) -> list[str]:
        try:
            behind = self.file.stat().st_size - self._position
        except FileNotFoundError:
            return []
        if behind <= BACKLOG:
            return []
        skipped = behind - BLOCK
        self._position += skipped
        self._rest, self._held = [], 0
        return [f"[{skipped} bytes of output left out]"]
