"""Errors, signals, progress, atomic files, leases, and what is recorded of the machine."""
