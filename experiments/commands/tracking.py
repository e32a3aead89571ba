"""The commands `run.py ui` and `run.py sync`: their words and help. The work is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from experiments.commands.flags import Output, Tracking


def ui(
    *,
    output_dir: Output = Path("outputs"),
    tracking_uri: Tracking = None,
    port: int = 5000,
    host: Annotated[str, Parameter(help="the address to listen on; any but 127.0.0.1 lets others in")] = "127.0.0.1",
) -> int:
    """Open MLflow's pages on this machine, with the runs of this project in them.

    Example: python run.py ui
    """
    from experiments.tracking import ui as pages

    pages.serve(output_dir, tracking_uri, port, host)
    return 0


def sync(*, output_dir: Output = Path("outputs"), tracking_uri: Tracking = None) -> int:
    """Upload to MLflow whatever it lacks of the runs on the disk, after it was away. Twice is once.

    Example: python run.py sync
    """
    from experiments.studies import mlflow_sync as uploading

    return uploading.upload(output_dir, tracking_uri)
