"""Atomic files, SHA-256 and JSON: `analysis.records.files`, where analysis can import it as well."""

from analysis.records.files import (
    move_into_place,
    name_file,
    no_check,
    open_atomically,
    read_json,
    relative_to_cwd,
    sha256_of,
    temporary_name,
    write_atomically,
)

__all__ = [
    "move_into_place", "name_file", "no_check", "open_atomically", "read_json", "relative_to_cwd", "sha256_of",
    "temporary_name", "write_atomically",
]  # fmt: skip
