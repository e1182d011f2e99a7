"""Static embeddings of sentence-transformers and model2vec: a token embedding table without an encoder.

https://github.com/MinishLab/model2vec. A text is the mean of its tokens' vectors, without special tokens or a maximum
length.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.data.tokenizers import tokenizer
from zoo.data.tokenizers.base import Tokenizer
from zoo.data.tokenizers.variants import without_special
from zoo.errors import UserError
from zoo.hub.files import open_tensors, read_json
from zoo.hub.placing import parameter_dtype

TOKENIZER = "tokenizer.json"


class StaticEmbedding(NamedTuple):
  """An embedding lookup with a model's interface."""

  vocab_size: int

  @property
  def spec(self) -> dict[str, Any]:
    """Empty: `zoo.build` has no such model."""
    return {"family": "static_embedding"}

  @property
  def preprocessing(self) -> dict[str, Any]:
    """Empty."""
    return {}

  def __call__(self, tokens: jax.Array, *, valid: Any = None) -> dict[str, jax.Array]:
    """Raises UserError: use `apply`."""
    raise UserError("A static embedding cannot be called. Use apply({'params': params}, tokens).")

  def apply(self, variables: Mapping[str, Any], tokens: jax.Array, *, valid: Any = None) -> dict[str, jax.Array]:
    """int32 [batch, length] -> {"hidden": [batch, length, dim]}"""
    return {"hidden": variables["params"]["embedding"][tokens]}


def load_static(folder: pathlib.Path, dtype: Any = None) -> tuple[StaticEmbedding, dict[str, jax.Array]]:
  """Loads the table in a folder: embedding.weight, or model2vec's embeddings with a mapping and weights of tokens.

  Raises:
    UserError: there is none, or there are unknown or misshapen arrays beside it.
  """
  tensors = open_tensors(folder)
  names = set(tensors)
  if names == {"embedding.weight"}:
    table = tensors["embedding.weight"].astype(np.float32)
  elif "embeddings" in names and names <= {"embeddings", "mapping", "weights"}:
    table = tensors["embeddings"].astype(np.float32)
    if "mapping" in names:
      mapping = tensors["mapping"]
      if mapping.ndim != 1 or mapping.size and not 0 <= mapping.min() <= mapping.max() < len(table):
        raise UserError(f"{folder}: mapping {mapping.shape} does not index the {len(table)} rows of embeddings.")
      table = table[mapping]
    if "weights" in names:
      if tensors["weights"].shape != table.shape[:1]:
        raise UserError(f"{folder}: weights {tensors['weights'].shape} do not fit {len(table)} tokens.")
      table = table * tensors["weights"].astype(np.float32)[:, None]
  else:
    raise UserError(
      f"{folder} holds neither embedding.weight alone nor embeddings. It holds: {', '.join(names)[:200]}."
    )
  if table.ndim != 2:
    raise UserError(f"{folder}: the table of vectors is {table.shape}. It must be [tokens, dim].")
  return StaticEmbedding(len(table)), {"embedding": jnp.asarray(table, parameter_dtype(dtype))}


def static_tokenizer(folder: pathlib.Path, vocab_size: int) -> Tokenizer:
  """The tokenizer.json of a folder, without special tokens, and with truncation only if the file has it."""
  bare = without_special(tokenizer(str(folder / TOKENIZER)))
  if bare.vocab_size > vocab_size:
    raise UserError(f"{folder}: the tokenizer has {bare.vocab_size} tokens, but the table has {vocab_size} vectors.")
  cut = read_json(folder / TOKENIZER).get("truncation")
  return bare.changed(max_length=cut["max_length"] if isinstance(cut, dict) else None)
