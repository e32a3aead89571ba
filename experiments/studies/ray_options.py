"""Where the runs of a study are to be carried out, as it was typed. Nothing heavy is imported here, Ray least of all."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from experiments.config import values
from registry import InputError


@dataclass(frozen=True)
class RayOptions:
    """What was asked for: a cluster's address (None: Ray on this machine), the share of a GPU for a run, runs at a time."""

    address: str | None = None
    gpus_per_run: float | None = None
    parallel: int | None = None


def parse_options(
    executor: str, ray_address: str | None, gpus_per_run: str | None, parallel: str | None
) -> RayOptions | None:
    """What the words of the command line ask for; None for this process. Raises InputError; nothing heavy is imported."""
    values.one_of("executor", executor, ("here", "ray"))
    given = {"--ray-address": ray_address, "--gpus-per-run": gpus_per_run, "--parallel": parallel}
    if executor == "here":
        for flag in (name for name, value in given.items() if value is not None):
            raise InputError(f"{flag} says how to use Ray: add --executor ray, or leave it out.")
        return None
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "Ray is not installed. Type: pip install -r requirements-ray.txt, or leave out --executor ray."
        )
    count = None if parallel is None else values.whole("--parallel", parallel)
    return RayOptions(ray_address, None if gpus_per_run is None else _share(gpus_per_run), count)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1e6 or (share > 1 and share != int(share)):
        raise InputError(f"--gpus-per-run takes a share of one GPU, such as 0.25, or a whole number, not '{text}'.")
    return share
