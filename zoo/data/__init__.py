"""Pipelines from raw examples to batches: one per file, found by its name; batch k is a function of seed and k."""
