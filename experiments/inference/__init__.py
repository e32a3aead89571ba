"""Use of a trained model: load, predict, evaluate on a data set, export, Kaggle submission, demo page."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.inference.trained_model import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import `load`, and torch with it, on first use (PEP 562)."""
    if name == "load":
        from experiments.inference.trained_model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
