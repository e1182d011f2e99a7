"""Optimisers, schedules, averages, and what each parameter gets of them."""

from zoo.optim.build import check_average, check_reduce_dtype, optimizer, roles, update_average

__all__ = ["check_average", "check_reduce_dtype", "optimizer", "roles", "update_average"]
