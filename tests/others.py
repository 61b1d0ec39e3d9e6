"""For tests in which another user than root has to get at a file of the test."""

from __future__ import annotations

import tempfile
from pathlib import Path


def let_others_enter(directory: Path) -> None:
    """Open `directory` and what it stands in, up to the place for temporary files, which stays."""
    top = Path(tempfile.gettempdir()).resolve()
    for one in (directory, *directory.parents):
        if one.resolve() == top or not one.resolve().is_relative_to(top):
            return
        one.chmod(0o755)
