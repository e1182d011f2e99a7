"""Verifies that a sharded step computes the same as one device."""
