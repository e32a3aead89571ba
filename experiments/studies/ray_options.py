"""Options of the Ray executor. Nothing heavy is imported here, Ray least of all."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from registry import InputError


@dataclass(frozen=True)
class RayOptions:
    """The cluster's address (None: this machine), the fraction of a GPU per run, the number of concurrent runs."""

    address: str | None = None
    gpus_per_run: float | None = None
    parallel: int | None = None


def parse_options(
    executor: str, ray_address: str | None, gpus_per_run: float | None, parallel: int | None
) -> RayOptions | None:
    """The options of `--executor ray`; None for this process. Raises InputError."""
    flags = {"--ray-address": ray_address, "--gpus-per-run": gpus_per_run, "--parallel": parallel}
    if executor == "here":
        for flag in (name for name, value in flags.items() if value is not None):
            raise InputError(f"{flag} is an option of Ray: add --executor ray, or leave it out.")
        return None
    if importlib.util.find_spec("ray") is None:
        raise InputError(
            "Ray is not installed. Type: pip install -r requirements-ray.txt, or leave out --executor ray."
        )
    return RayOptions(ray_address, gpus_per_run, parallel)
