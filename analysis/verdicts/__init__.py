"""Which runs may be compared, and what the comparison says."""
