"""Losses: pure functions of parameters and a batch, one per file, found by their names."""
