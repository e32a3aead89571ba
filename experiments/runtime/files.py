"""Atomic files, SHA-256 and JSON, re-exported from `analysis.records.files`, and paths as they are typed."""

from pathlib import Path

from analysis.records.files import (
    move_into_place,
    name_file,
    no_check,
    open_atomically,
    read_json,
    sha256_of,
    temporary_name,
    write_atomically,
)

__all__ = [
    "move_into_place", "name_file", "no_check", "open_atomically", "read_json", "relative_to_cwd", "sha256_of",
    "temporary_name", "write_atomically",
]  # fmt: skip


def relative_to_cwd(path: Path) -> Path:
    """`path` as it is typed from the working directory, where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
