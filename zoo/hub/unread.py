"""Tensors in published files that a model does not read: repeated ones, and those of another head."""

import warnings
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from zoo.errors import UserError
from zoo.hub import tables


def check_repetitions(
  table: ModuleType, names: Collection[str], file_names: Mapping[str, str], tensors: Any, where: str
):
  """UserError if the files hold a tensor with and without its prefix (`wte`, `transformer.wte`), of other values.

  Args:
    table: conversion table of zoo/convert.
    names: those that the model reads, in the table's spelling.
    file_names: name in the table's spelling -> name in the files.
    tensors: name in the files -> array, read lazily.
    where: the files in the message.
  """
  for name in names:
    spellings = {spelling: None for spelling in tables.spellings(name, table) if spelling in file_names}
    first, *others = [file_names[spelling] for spelling in spellings if spelling == name or spelling not in names] or [
      ""
    ]
    for other in others:
      if not np.array_equal(tensors[first], tensors[other]):
        raise UserError(
          f"{where} has '{first}' and '{other}' with different values, two of one parameter. Remove the wrong one."
        )


def all_names(table: ModuleType, sizes: Mapping[str, Any]) -> set[str]:
  """Tensor names of all heads: those of other heads may be in the files and are ignored."""
  return {rule.theirs for head in table.HEADS for rule in table.rules(tables.with_head(table, sizes, head))}


def warn_of_left_out_head(table: ModuleType, sizes: Mapping[str, Any], names: Collection[str], where: str) -> None:
  """Warns of the tensors of a head that a model without `architectures` is loaded without.

  Args:
    table: conversion table of zoo/convert.
    sizes: of the model to load.
    names: of the tensors in the files.
    where: the config.json.
  """
  file_names = tables.canonical(names, table, where)
  of_head = lambda head: {rule.theirs for rule in table.rules(tables.with_head(table, sizes, head))}
  bare = lambda name: tables.spellings(name, table)[1]
  read = {bare(name) for name in of_head(tables.head_of(table, sizes))}
  in_files = {bare(name): file for name, file in file_names.items() if name not in tables.tied(table)}
  heads = {}
  for head in table.HEADS:
    theirs = {bare(name) for name in of_head(head)} - tables.tied(table).keys() - read
    if theirs and theirs <= in_files.keys():
      heads[head or tables.NO_HEAD] = theirs
  if not heads:
    return
  whole = max(heads, key=lambda head: len(heads[head]))
  left_out = ", ".join(sorted(in_files[name] for name in heads[whole])[:4])
  warnings.warn(
    f"{where} names no architectures: {left_out} in the files are left out. Load with head='{whole}' to have them, or "
    f"with head='{tables.head_of(table, sizes) or tables.NO_HEAD}' to have no such warning.",
    stacklevel=4,
  )
