"""The zoo: Transformer families in pure functional JAX.

build(family, variant=None, **sizes)    a model
build_objective(name, model)            a loss, for a training loop of your own
list_models(pattern="*")                the published variants, with their parameter counts
load(source), save(folder, ...)         a model and its parameters, from disk or the hub, and to disk
save_hf(folder, model, params)          a model as files that torch transformers loads
load_data(source, split)                a dataset, or the examples that a run's model reads
load_tokenizer(source)                  texts -> what a model takes, and back
load_processor(source)                  images, or sounds -> what a model takes
load_generation_options(source)         a model's recommended generation settings: keywords of `generate`
embed(source, texts_or_images)          vectors; `embedder` loads the model once for many calls
evaluate_model(source, task=, data=)    metrics of a model on data; python -m zoo.evaluate --model= from a shell
fill_mask(source, texts)                the likeliest words for [MASK]
generate(model, params, tokens, ...)    text, token by token; python -m zoo.generate from a shell
export(source, folder)                  programs that run without the zoo; python -m zoo.export from a shell
transcribe(source, recordings)          transcripts of recordings of any length; `transcriber` loads the model once
capture(model, params, *inputs)         intermediate activations: hidden states of layers, attention weights

zoo.compat has the Flax classes that transformers 5 removed, under their old names.
"""

import importlib
import os
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from zoo.build import build, build_objective, list_models
  from zoo.capture import capture
  from zoo.data.datasets import load_data
  from zoo.embed import embed, embedder
  from zoo.evaluate.from_folder import evaluate_model
  from zoo.export import export
  from zoo.fill_mask import fill_mask
  from zoo.generate import generate
  from zoo.hub.generation import load_generation_options
  from zoo.hub.preprocessing import load_processor
  from zoo.hub.tokenizers import load_tokenizer
  from zoo.hub.writing import save_hf
  from zoo.saving import load, save
  from zoo.transcribe import transcribe, transcriber

_HOME = {
  "build": "zoo.build",
  "build_objective": "zoo.build",
  "list_models": "zoo.build",
  "capture": "zoo.capture",
  "load": "zoo.saving",
  "save": "zoo.saving",
  "save_hf": "zoo.hub.writing",
  "load_data": "zoo.data.datasets",
  "load_tokenizer": "zoo.hub.tokenizers",
  "load_generation_options": "zoo.hub.generation",
  "load_processor": "zoo.hub.preprocessing",
  "embed": "zoo.embed",
  "embedder": "zoo.embed",
  "evaluate_model": "zoo.evaluate.from_folder",
  "export": "zoo.export",
  "fill_mask": "zoo.fill_mask",
  "generate": "zoo.generate",
  "transcribe": "zoo.transcribe",
  "transcriber": "zoo.transcribe",
}
__all__ = [
  "build",
  "build_objective",
  "capture",
  "embed",
  "embedder",
  "evaluate_model",
  "export",
  "fill_mask",
  "generate",
  "list_models",
  "load",
  "load_data",
  "load_generation_options",
  "load_processor",
  "load_tokenizer",
  "save",
  "save_hf",
  "transcribe",
  "transcriber",
]


# A command, python -m zoo.generate, whose module Python is still looking for; or train.py beside this package.
if sys.argv[:1] == ["-m"] or [*map(os.path.abspath, sys.argv[:1])] == [os.path.abspath(f"{__path__[0]}/../train.py")]:
  importlib.import_module("zoo.errors").interrupts_in_one_line()


def __getattr__(name):
  # Lazily, so that `import zoo` costs nothing.
  if name not in _HOME:
    raise AttributeError(f"module 'zoo' has no attribute '{name}'")
  value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
  return value


def __dir__():
  return sorted([*globals(), *__all__])


class _Zoo(types.ModuleType):
  """Python binds a submodule to its package once it is imported; `zoo.build` and `zoo.generate` stay the functions."""

  def __setattr__(self, name, value):
    if not (name in _HOME and isinstance(value, types.ModuleType)):
      super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Zoo
