"""The model to fine-tune: that of a folder, with the head of the task."""

import math
import os
import pathlib
import re
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax

from zoo.build import build, by_layer, sizes_of, weights_of
from zoo.errors import UserError, family_of
from zoo.evaluate.model_kinds import described
from zoo.hub import tables
from zoo.hub.files import is_published
from zoo.hub.ids import folder_of
from zoo.hub.labels import class_names_in
from zoo.hub.loading import published_model
from zoo.saving import MODEL, load
from zoo.storage import as_path, is_remote
from zoo.tree import flatten


class Origin(NamedTuple):
  """The model in the folder that training starts from.

  Attributes:
    folder: its path.
    model: as in the folder.
    table: conversion table of its family, of zoo/convert.
    head: name of its head.
    classes: names of its classes; None without classes.
    ignore: entries of its config.json to ignore.
    published: whether its files are in the hub's layout.
  """

  folder: Any
  model: Any
  table: ModuleType
  head: str | None
  classes: list[str] | None
  ignore: Collection[str]
  published: bool

  @property
  def num_classes(self) -> int | None:
    return sizes_of(self.model).get("num_classes")


def open_origin(where: str | os.PathLike, ignore: Collection[str]) -> Origin:
  """Opens a folder like `zoo.load`; no weights of a published model are read."""
  folder: Any = as_path(where) if is_remote(where) else folder_of(where)
  published = isinstance(folder, pathlib.Path) and not (folder / MODEL).exists() and is_published(folder)
  if published:
    model, table, _ = published_model(folder, ignore=ignore)
  else:
    model, _ = load(where, ignore=ignore)
    table = tables.of_family(family_of(model))
  head, count = tables.head_of(table, sizes_of(model)), sizes_of(model).get("num_classes")
  names = None if count is None else _class_names(folder, model, count)
  return Origin(folder, model, table, head, names, ignore, published)


def _class_names(folder: Any, model: Any, count: int) -> list[str]:
  names = model.preprocessing.get("classes")
  names = class_names_in(folder, count) if names is None and isinstance(folder, pathlib.Path) else names
  return names or [f"LABEL_{number}" for number in range(count)]


def with_head(origin: Origin, head: str | None, num_classes: int | None, needs: str) -> Any:
  """The folder's model with another head; with `num_classes` outputs if that is configurable.

  head: None: its own; NO_HEAD: none, an encoder alone.
  needs: requirement of the task for messages, "classification needs a head ...".

  Raises:
    UserError: the family has no such head.
  """
  if head is None:
    return origin.model
  if head == tables.NO_HEAD:
    head = "encoder" if "encoder" in origin.table.HEADS else None
  if head not in origin.table.HEADS:
    raise UserError(f"{needs}. {origin.folder} is a {described(origin.model)}, and the zoo's has no head '{head}'.")
  if origin.published:
    model = published_model(origin.folder, head=head or tables.NO_HEAD, ignore=origin.ignore)[0]
    spec: dict[str, Any] = model.spec
  else:
    model = origin.model
    spec = {**model.spec, **_changed(sizes_of(model), tables.with_head(origin.table, sizes_of(model), head))}
  carries = {name: entry for name, entry in model.preprocessing.items() if name != "classes"}
  if num_classes is not None:
    spec["num_classes"] = num_classes
  return build(**spec, preprocessing=carries)


def _changed(old: dict[str, Any], new: Any) -> dict[str, Any]:
  return {name: size for name, size in new.items() if old.get(name) != size}


def last_layer(model: Any) -> Sequence[str]:
  """Patterns of the parameters whose shapes depend on the number of classes: the output layer."""
  more = build(**{**model.spec, "num_classes": sizes_of(model)["num_classes"] + 1})
  shapes, others = (
    {name: leaf.shape for name, leaf in flatten(jax.eval_shape(by_layer, weights_of(each))).items()}
    for each in (model, more)
  )
  return [re.escape(name) for name, shape in shapes.items() if math.prod(shape) != math.prod(others[name])]
