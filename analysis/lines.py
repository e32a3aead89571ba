"""Files to which lines of JSON are appended: what a crash may leave in one, and what it cannot have left; and the seal of a result."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.errors import InputError


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, in order; of a missing file, none.

    A crash while a line was appended leaves that line without its end: it is left out. Any other line that is no JSON
    object was damaged later, and what it said is lost. Raises InputError with its number for such a one.
    """
    whole = (path.read_bytes() if path.exists() else b"").split(b"\n")[:-1]  # what follows the last end of line is torn
    return [_object(path, number, line) for number, line in enumerate(whole, start=1)]


def seal(result: dict[str, Any]) -> str:
    """The SHA-256 of what a result says, but for its seal itself: a number that is changed later does not fit it."""
    said = json.dumps({name: value for name, value in result.items() if name != "seal"}, sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        content = json.loads(line)
    except ValueError:  # no JSON, or not even UTF-8
        content = None
    if not isinstance(content, dict):
        raise InputError(
            f"Line {number} of {path} is damaged. Put the file back from a copy, or give the run up and train it again: "
            f"rm -r {path.parent}"
        )
    return content
