"""The pure step of an experiment, and what watches over it while it runs."""
