"""Sampled continuations of a language model."""

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from zoo.errors import UserError
from zoo.evaluate.artifacts import write_text
from zoo.evaluate.forward import fetch
from zoo.generate import checks, generate
from zoo.generate.steps import encodes
from zoo.train.model_data import tokenizer_for


def samples(
  model: Any,
  *,
  prompts: Sequence[str] = ("",),
  tokenizer: str | None = None,
  max_new_tokens: int = 100,
  temperature: float = 0.8,
  top_k: int | None = 50,
  top_p: float | None = None,
  seed: int = 0,
  file: str = "samples",
) -> Callable:
  """Evaluator: (params, folder=None, step=None) -> {"tokens", "distinct"}; writes prompts and samples to `file`.txt.

  Each prompt is at the start of a document, after the end-of-text token, as in the training stream; so an empty
  prompt samples a new document. A text ends at the model's end token. `tokens` is the mean length; `distinct` the share
  of tokens that occur for the first time in their text: a model that repeats itself is near 0.

  Args:
    model: a decoder.
    prompts: texts to continue.
    tokenizer: name or path; by default the model's own, or `gpt2` if it has none. UserError if it does not fit.
    max_new_tokens, temperature, top_k, top_p: as in `zoo.generate`.
    seed: of the draws.
    file: name of the text file, without extension.
  """
  encoder = tokenizer_for(model, tokenizer, "gpt2", "samples")
  eos = encoder.eos if encoder.eos is not None else encoder.sep
  if eos is None:
    raise UserError(f"samples: tokenizer {encoder.name} has no end-of-text token (eos or sep). Choose another.")
  prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
  if not prompts:
    raise UserError("samples: prompts is empty. Give a list of str; an empty str starts a new document.")
  starts, valid = left_padded([[eos, *encoder.encode(prompt)] for prompt in prompts], encoder.pad or 0)
  options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "rng": jax.random.key(seed)}
  checks.decodes(model)
  checks.length_fits(
    model, 1 if encodes(model) else starts.shape[1], max_new_tokens
  )  # Raises before training, not after it.
  checks.numbers(**options, min_p=None)
  options |= {"max_new_tokens": max_new_tokens, "eos": eos}

  def evaluate(params: Any, folder: str | os.PathLike | None = None, step: int | None = None) -> dict[str, float]:
    sequences = fetch(generate(model, params, starts, valid=valid, **options))
    written = [until(row, eos) for row in sequences[:, starts.shape[1] :].tolist()]
    texts = [f"{prompt}|{encoder.text_of(tokens)}" for prompt, tokens in zip(prompts, written, strict=True)]
    head = f"temperature {temperature}, top_k {top_k}, top_p {top_p}; the model's words follow the bar |."
    write_text(folder, f"{file}.txt", "\n\n---\n\n".join([head if step is None else f"Step {step}, {head}", *texts]))
    return {
      "tokens": float(np.mean([len(tokens) for tokens in written])),
      "distinct": float(np.mean([len(set(tokens)) / max(len(tokens), 1) for tokens in written])),
    }

  return evaluate


def left_padded(rows: list[list[int]], pad: int) -> tuple[np.ndarray, np.ndarray]:
  """Left-pads token lists: int32 [rows, longest], and valid, bool [rows, longest]."""
  longest = max(map(len, rows))
  tokens = np.array([[pad] * (longest - len(row)) + row for row in rows], np.int32)
  return tokens, np.array([[False] * (longest - len(row)) + [True] * len(row) for row in rows])


def until(tokens: list[int], end: int | None) -> list[int]:
  """The tokens before the first `end`."""
  return list(itertools.takewhile(lambda token: token != end, tokens))
