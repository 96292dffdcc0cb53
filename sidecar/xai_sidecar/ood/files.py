"""Writing files so that others, and this program after a crash, see the old one or the new one, never a part."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_whole(target: Path, content: bytes) -> None:
    """Puts a file in its place at once.

    Args:
        target: Where; its folder must exist.
        content: What.

    Raises:
        OSError: The folder cannot be written, or is full. A file that was there before is still there.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            # Readable to whom the folder is, for instance to the user of an image that root has built.
            os.fchmod(file.fileno(), 0o644)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the name with nothing behind it
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
