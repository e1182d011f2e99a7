"""Data pipelines from raw examples to batches: one per file, found by name; batch k is a function of (seed, k)."""
