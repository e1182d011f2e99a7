"""Configs: loading, command-line overrides, validation, and registries."""
