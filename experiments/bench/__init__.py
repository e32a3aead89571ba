"""Benchmarks of this machine: training step, data loader, scoring, and overhead of a run.

The speed of a shared machine drifts by tens of percent within minutes. So alternatives are measured in alternation, a
ratio is the median of the rounds' ratios, and the machine's peak is measured in the same run.
"""
