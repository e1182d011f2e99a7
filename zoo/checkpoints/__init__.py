"""Whole train states on disk, and whether any bit of them has changed.

Nothing is imported here: retention and fingerprints are used where Orbax, which takes a second to import, is not.
"""
