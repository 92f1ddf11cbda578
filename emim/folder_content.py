"""What a folder holds, for those who may only use an empty one."""

from __future__ import annotations

from pathlib import Path

OF_BROWSERS = {".DS_Store", "desktop.ini", "Thumbs.db"}  # macOS and Windows leave them where somebody looked


def folder_content(folder: Path) -> set[str]:
    """Names of what is in ``folder``, without what file browsers leave."""
    return {p.name for p in folder.iterdir()} - OF_BROWSERS
