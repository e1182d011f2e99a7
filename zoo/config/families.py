"""Metadata of families from the files of zoo/models, with one-line errors for missing parts."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from zoo.config.registry import check_type, defining, parameters_of
from zoo.config.schema import resolve
from zoo.errors import UserError, shown

VARIANTS = (Mapping, 'VARIANTS = {"base": dict(dim=768, ...)}, the published sizes by variant; {} if there are none')
PARAMETERS = (Mapping, 'PARAMETERS = {"base": 110_106_428}, the parameter count of every variant')
PAPER = (Mapping, 'PAPER = {"title": ..., "authors": ..., "year": ..., "url": ...}')


def variants(family: str) -> Mapping[str, Mapping[str, Any]]:
  """The published sizes of a family, {variant: sizes}. UserError if its file has none.

  >>> sorted(variants("bert"))
  ['base', 'large']
  """
  sizes = defining("models", family, VARIANTS=VARIANTS).VARIANTS
  for variant, of_variant in sizes.items():
    check_type(f"zoo/models/{family}.py: VARIANTS[{variant!r}]", of_variant, Mapping)
  return sizes


def published(family: str) -> Iterator[tuple[str, int, str]]:
  """(variant, parameter count, paper) of every variant of a family. UserError if its file has none."""
  where = f"zoo/models/{family}.py"
  module = defining("models", family, VARIANTS=VARIANTS, PARAMETERS=PARAMETERS, PAPER=PAPER)
  papers = getattr(module, "PAPERS", {})
  check_type(f"{where}: PAPERS", papers, Mapping)
  for variant in variants(family):
    if variant not in module.PARAMETERS:
      raise UserError(f"{where}: PARAMETERS has no {variant!r}. Add its published count.")
    paper = next((paper for prefix, paper in papers.items() if variant.startswith(prefix)), module.PAPER)
    lacking = [entry for entry in ("title", "authors", "year", "url") if entry not in paper]
    if lacking:
      raise UserError(f"{where}: a paper lacks {', '.join(lacking)}. Write {PAPER[1]}.")
    yield variant, module.PARAMETERS[variant], "{title} ({authors}, {year}) {url}".format(**paper)


def parts(
  family: str, factory: Callable, sizes: Mapping[str, Any], inherited: Collection[str], build: Callable
) -> dict[str, Any]:
  """Builds the sizes of a family's function that are models, its parameters of the type `Model`.

  Args:
    family, factory: its name and its function.
    sizes: its arguments. A model is a mapping with its family, variant and sizes.
    inherited: names of sizes that a model has of the whole, unless it has its own.
    build: `zoo.build`.

  Raises:
    UserError: one is no such mapping, or cannot be built.
  """
  defaults = {name: sizes[name] for name in inherited if name in sizes}
  models = {}
  for name in [
    name for name, parameter in parameters_of(factory).items() if hasattr(parameter.annotation, "spec_json")
  ]:
    section = sizes[name]
    if not isinstance(section, Mapping | ConfigDict) or not isinstance(section.get("family"), str):
      raise UserError(f"{family}.{name} is {shown(section)}. It must be a mapping with the 'family' of a model.")
    if section["family"] == family:
      raise UserError(f"{family}.{name} is another {section['family']}. Choose another family.")
    try:
      models[name] = build(**defaults | resolve(section, f"{family}.{name}"))
    except UserError as error:
      raise UserError(f"{family}: its {name}, {error}") from error
  return models
