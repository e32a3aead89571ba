"""Estimators, comparisons, effects, power and learning-rate response: pure functions of score arrays."""
