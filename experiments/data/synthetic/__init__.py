"""Synthetic cars: a small renderer that writes labelled images in the layout of Carvana."""
