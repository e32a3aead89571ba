"""How fast this machine is at it: the step, the loader, scoring and what a run costs besides, measured in one go.

Figures of a shared machine drift by tens of percent within minutes. So what is compared is measured in turns, a ratio is
the median of the ratios of the turns, and the machine's own peak is measured in the same run.
"""
