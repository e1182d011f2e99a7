"""Optimisers, learning-rate schedules, parameter averages, and per-parameter settings."""

from zoo.optim.build import check_average, check_reduce_dtype, optimizer, roles, update_average

__all__ = ["check_average", "check_reduce_dtype", "optimizer", "roles", "update_average"]
