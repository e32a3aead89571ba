"""Segmentation metrics, per-image scoring of models, calibration."""
