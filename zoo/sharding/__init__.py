"""Sharding: meshes, rules for parameters, activations and batches, and the report."""

from zoo.sharding.batches import batch_part, batch_sharding, check_rows, num_row_shards, put_batch, put_replicated
from zoo.sharding.meshes import check_axes, make_mesh, mesh_of
from zoo.sharding.rules import axes_of, placements, report, shardings
from zoo.sharding.strategies import STRATEGIES

__all__ = [
  "STRATEGIES",
  "axes_of",
  "batch_part",
  "batch_sharding",
  "check_axes",
  "check_rows",
  "make_mesh",
  "mesh_of",
  "num_row_shards",
  "placements",
  "put_batch",
  "put_replicated",
  "report",
  "shardings",
]
