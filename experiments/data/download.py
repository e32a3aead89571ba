"""Download of Kaggle's zips with kagglehub, an optional dependency that only this needs.

Only train.zip and train_masks.zip are fetched (0.4 GB of the competition's 24), into kagglehub's cache, where an
interrupted download resumes. They are unpacked by `archives`, like zips that were downloaded by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from experiments.runtime.errors import RunFailed
from registry import InputError

COMPETITION = "carvana-image-masking-challenge"
PAGE = f"https://www.kaggle.com/c/{COMPETITION}"
BY_HAND = (
    f"or download train.zip and train_masks.zip from {PAGE}/data "
    "and type: python run.py data import train.zip train_masks.zip"
)


def fetch() -> list[Path]:
    """Download Kaggle's train.zip and train_masks.zip if necessary; return their paths.

    Raises InputError without kagglehub, a token or accepted rules, RunFailed if Kaggle cannot be reached.
    """
    try:
        from kagglehub import competition_download
    except ImportError:
        raise InputError(f"The download needs kagglehub. Type: pip install kagglehub, {BY_HAND}") from None
    return [_fetch(competition_download, name) for name in ("train.zip", "train_masks.zip")]


def _fetch(competition_download: Callable[..., str], name: str) -> Path:
    try:
        return Path(competition_download(COMPETITION, path=name))
    except Exception as error:  # kagglehub raises its own, kagglesdk's, requests' and the system's errors
        raise _explained(error, name) from error


def _explained(error: Exception, name: str) -> InputError | RunFailed:
    """The error as a sentence that says what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    kind = type(error).__name__
    if status == 403:
        return InputError(f"Kaggle refuses {name}: accept the rules at {PAGE}/rules, then repeat the command.")
    if status == 401 or kind in ("UnauthenticatedError", "CredentialError"):
        return InputError(
            "Kaggle needs authentication. Create an API token at https://www.kaggle.com/settings/api, put it into the "
            f"variable KAGGLE_API_TOKEN, and accept the rules at {PAGE}/rules; {BY_HAND}"
        )
    if "Connection" in kind or "Timeout" in kind:
        return RunFailed(f"Kaggle cannot be reached ({kind}). Check the network and repeat the command, {BY_HAND}")
    text = " ".join(str(error).split())[:200]
    return RunFailed(f"Kaggle's {name} could not be downloaded ({kind}: {text}). Repeat the command, {BY_HAND}")
