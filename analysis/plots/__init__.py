"""Figures: comparisons, training curves, image panels, network diagrams."""
