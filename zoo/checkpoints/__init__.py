"""Checkpoints of full train states, with detection of corrupted bits.

Nothing is imported here: retention and fingerprints are used where Orbax, which takes a second to import, is not.
"""
