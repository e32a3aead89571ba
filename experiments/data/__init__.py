"""Images and masks: data sets, split, decoded cache, torch Dataset."""

from typing import TYPE_CHECKING, Any

from experiments.data.samples import Sample
from experiments.data.splits import Split, split

if TYPE_CHECKING:
    from experiments.data.dataset import ImageDataset

__all__ = ["ImageDataset", "Sample", "Split", "split"]


def __getattr__(name: str) -> Any:
    """Import ImageDataset, and torch with it, on first use (PEP 562)."""
    if name == "ImageDataset":
        from experiments.data.dataset import ImageDataset

        return ImageDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
