"""Ahead-of-time planning: compiles the real step for hardware you don't have."""
