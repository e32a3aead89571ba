"""MLflow: the store, the runs in it, its user interface."""
