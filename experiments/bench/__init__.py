"""Benchmarks of this machine: the training step, the loader, scoring, and the overhead of a run.

Speeds of a shared machine drift by tens of percent within minutes. So whatever is compared is measured in
alternation, a ratio is the median of the ratios of the rounds, and the peak of the machine is measured in the same
run.
"""
