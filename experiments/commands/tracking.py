"""The commands `run.py ui` and `run.py sync`. The work is imported once the flags are checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from experiments.commands.flags import OutputDir, TrackingUri, flag
from experiments.config import types


def ui(
    *,
    output_dir: OutputDir = Path("outputs"),
    tracking_uri: TrackingUri = None,
    port: Annotated[types.Port, flag("port (default: 5000)")] = 5000,
    host: Annotated[
        str, flag("address to listen on; any but 127.0.0.1 admits other machines (default: 127.0.0.1)")
    ] = "127.0.0.1",
) -> int:
    """Open the MLflow UI on this machine, with this project's runs.

    Example: python run.py ui
    """
    from experiments.tracking import ui as server

    server.serve(output_dir, tracking_uri, port, host)
    return 0


def sync(*, output_dir: OutputDir = Path("outputs"), tracking_uri: TrackingUri = None) -> int:
    """Backfill MLflow with local runs it is missing. Idempotent.

    Example: python run.py sync
    """
    from experiments.studies import sync_runs

    return sync_runs.upload(output_dir, tracking_uri)
