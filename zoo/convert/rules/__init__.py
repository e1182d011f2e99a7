"""Shared by conversion tables: layouts of arrays, entries of a published config.json."""
