"""Training: the pure step of an experiment, and the run around it."""
