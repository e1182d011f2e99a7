"""Verification that a mesh computes what one device does, before a run relies on it."""
