"""Training one run: losses, the loop, checkpoints, the run folder and the final evaluation."""
