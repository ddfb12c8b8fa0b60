"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path


def write_aside(path: Path, content: str | bytes | memoryview) -> None:
    """Writes a whole file or none: to a temporary one beside it, synced to disk, which is then renamed.

    Makes the folder if it is not there. Text is written as UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
