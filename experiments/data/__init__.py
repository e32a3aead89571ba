"""Photographs and masks: where they come from, how they are split, cached and loaded."""
