"""Configs: loading, command-line overrides, validation, and the registries that build what a config names."""
