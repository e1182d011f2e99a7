"""Zero-shot classification: the class whose description is nearest to the image (CLIP, section 3.1)."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from zoo.data.fields import templates_of
from zoo.data.image_text import Captions
from zoo.errors import UserError, shown
from zoo.evaluate import prompts, ranking
from zoo.evaluate.forward import check_defined, fetch, needs, outputs, put, records_of, within_length
from zoo.objectives.objective import optional_entries
from zoo.preprocessing import as_float, text_options
from zoo.sharding import mesh_of
from zoo.train.model_data import defaults, tokenizer_for
from zoo.tree import variables


def zero_shot(
  model: Any,
  *,
  data: Mapping | Any,
  batch_size: int = 64,
  templates: str | Sequence[str] = ("a photo of a {}.",),
  class_names: str | Sequence[str] | None = None,
  tokenizer: str | None = None,
  max_length: int | None = None,
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"top1", "top5", "chance/top1", "chance/top5"}.

  A class vector is the normalised mean of the unit embeddings of its templates (prompt ensembling,
  https://arxiv.org/abs/2103.00020, section 3.1.4). Chance is a random ranking; ties count as wrong.

  Args:
    model: with the methods encode_image and encode_text, as in CLIP.
    data: section of a pipeline with `image` and `label`, or its records.
    batch_size: images, or texts, per batch.
    templates: sentences with {} for the name; or one name or path, see `zoo.evaluate.prompts`: "imagenet".
    class_names: names of the classes in the order of the labels, or likewise one name or path; by default those of
      the data, with blanks for underscores.
    tokenizer: name or path; by default the model's own, or `clip` if it has none. UserError if it does not fit.
    max_length: tokens of a text; by default the limit of the model and its tokenizer.

  Raises:
    UserError: names, templates or tokenizer do not fit the data or the model.
  """
  needs(model, "zero_shot", "encode_image", "encode_text")
  records = records_of(data, model, "zero_shot", "image", "label")
  data_names = [name.replace("_", " ") for name in records.info.get("class_names") or []]
  names = data_names if class_names is None else prompts.class_names(class_names)
  if not names:
    raise UserError("zero_shot: the data have no class names. Give them as class_names, in the order of the labels.")
  if not_strings := [name for name in names if not isinstance(name, str)]:
    raise UserError(f"zero_shot: class_names has {shown(not_strings[0])}, not a str.")
  if class_names is not None:
    _check_names(names, data_names)
  templates = templates_of(prompts.templates(templates), "zero_shot", "the name of the class")
  encoder = tokenizer_for(model, tokenizer, "clip", "zero_shot")
  length = max_length or defaults(model).get("max_length", model.max_length)
  captions = Captions(encoder, length, ("{}",), 0.0, False)
  _check_lengths(captions, templates, names)
  texts = [captions.tokens(template.replace("{}", name)) for name in names for template in templates]

  @jax.jit
  def embed_image(params: Any, batch: dict) -> dict:
    image = model.apply(variables(params), as_float(batch["image"], model), method="encode_image")
    return {"image": image, "label": batch["label"]}

  @jax.jit
  def embed_text(params: Any, batch: dict) -> jax.Array:
    options = text_options(model, optional_entries(batch, "valid"))
    return model.apply(variables(params), batch["tokens"], **options, method="encode_text")

  def classes(params: Any) -> np.ndarray:
    """Class vectors [num_classes, embed_dim]."""
    rows = [*texts, *texts[:1] * (-len(texts) % batch_size)]  # padded, for a single compilation
    vectors = []
    for start in range(0, len(rows), batch_size):
      tokens, valid = map(np.stack, zip(*rows[start : start + batch_size], strict=True))
      with within_length("zero_shot", length):
        vectors.append(fetch(embed_text(params, put({"tokens": tokens, "valid": valid}, mesh_of(params)))))
    units = np.concatenate(vectors)[: len(texts)].astype(np.float32)
    check_defined({"text": units}, "zero_shot")
    mean = units.reshape(len(names), len(templates), -1).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    at = [k for k in (1, 5) if k < len(names)]
    hits, images, of_class = np.zeros(len(at), int), 0, classes(params).T
    for embedded, _ in outputs(embed_image, params, records, batch_size, model):
      label = embedded["label"]
      if label.max() >= len(names):
        raise UserError(
          f"zero_shot: the data have label {label.max()} but only {len(names)} class names, for 0 to {len(names) - 1}."
        )
      right = label[:, None] == np.arange(len(names))[None]
      ranks = ranking.ranks(embedded["image"].astype(np.float32) @ of_class, right)
      hits += [np.sum(ranks <= k) for k in at]
      images += len(label)
    metrics = {f"top{k}": float(hit / images) for k, hit in zip(at, hits, strict=True)}
    return metrics | {f"chance/top{k}": ranking.chance(np.eye(len(names), dtype=bool)[:1], k) for k in at}

  return evaluate


def _check_names(names: Sequence[str], of_data: Sequence[str]) -> None:
  """UserError if class names cannot be those of data that have names: another number, or one at another index."""
  way_out = "Leave class_names out, or give them in the order of the labels."
  if of_data and len(names) != len(of_data):
    raise UserError(
      f"zero_shot: class_names has {len(names)} names, the data have {len(of_data)} classes: "
      f"{shown(', '.join(of_data))}. {way_out}"
    )
  for label, (name, of_label) in enumerate(zip(names, of_data)):
    if name != of_label and of_label in names:
      raise UserError(
        f"zero_shot: label {label} is {shown(of_label)} in the data, {shown(name)} in class_names. {way_out}"
      )


def _check_lengths(captions: Captions, templates: Sequence[str], names: Sequence[str]) -> None:
  """UserError for a template that with a class name is truncated: classes would be told apart by less than a name."""
  longest = sorted(names, key=len, reverse=True)
  for template in templates:
    cut = next((name for name in longest if captions.cuts(template.replace("{}", name))), None)
    if cut is not None:
      raise UserError(
        f"zero_shot: the template {shown(template)} with {shown(cut)} has more than the {captions.max_length} tokens "
        "of a text. Shorten the template or the name."
      )
