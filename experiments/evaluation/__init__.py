"""Segmentation metrics, per-image evaluation of models, calibration."""

from experiments.evaluation.metrics import Scores, score

__all__ = ["Scores", "score"]
