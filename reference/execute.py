"""Run the notebook from top to bottom and write it back with its outputs: `make notebook`.

Times, counters and the interpreter's version are left out, so that the file only changes where an output does.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
NOTEBOOK = HERE / "u-net-pytorch.ipynb"
LONGEST = 600  # seconds a cell may take


def executed(path: Path = NOTEBOOK) -> nbformat.NotebookNode:
    """Return the notebook at `path`, run from a clean start. Raises CellExecutionError if a cell fails."""
    book = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    NotebookClient(book, timeout=LONGEST, record_timing=False, coalesce_streams=True, resources=where).execute()
    book.metadata["language_info"] = {"name": "python"}
    return book


if __name__ == "__main__":
    nbformat.write(executed(), NOTEBOOK)
