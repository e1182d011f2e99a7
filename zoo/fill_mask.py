"""Masked-token prediction: the likeliest words for [MASK]."""

import os
from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zoo.build import check_tokens
from zoo.errors import UserError, shown
from zoo.hub.tokenizers import load_tokenizer
from zoo.saving import load
from zoo.tree import variables


class Guess(NamedTuple):
  """A predicted word, its probability, and its token id."""

  word: str
  probability: float
  token: int


def fill_mask(
  source: str | os.PathLike,
  texts: str | Sequence[str],
  *,
  best: int = 5,
  batch_size: int = 32,
  ignore: Collection[str] = (),
) -> list[list[Guess]] | list[list[list[Guess]]]:
  """Predicts the words behind masks, each mask independently: `fill_mask(source, "Paris is [MASK].")[0][0]`.

  Args:
    source: a folder in the hub's layout, a hub id, or a run, of a model with the output "mlm".
    texts: one or several, with the tokenizer's mask token: [MASK], <mask>.
    best: number of words for each mask.
    batch_size: texts per batch.
    ignore: entries of a published model's config.json to ignore, as in `zoo.load`.

  Returns:
    for each mask its guesses, the likeliest first; for several texts, a list of these for each.

  Raises:
    UserError: the model or its tokenizer has no masks, or a text has none.

  >>> import zoo
  >>> sizes = dict(vocab_size=30522, max_length=8, dim=8, depth=1, num_heads=2, head="mlm")
  >>> model = zoo.build("bert", **sizes, preprocessing={"tokenizer": "bert"})
  >>> zoo.save("tiny_bert", model, model.init(jax.random.key(0), *model.example())["params"])
  >>> (guesses,) = zoo.fill_mask("tiny_bert", "Paris is [MASK].", best=3)
  >>> len(guesses), guesses[0].probability >= guesses[1].probability
  (3, True)
  """
  tokenizer = load_tokenizer(source)
  if tokenizer.mask is None:
    raise UserError(f"The tokenizer of {source} has no mask token. Choose a masked language model, e.g. BERT.")
  several = [texts] if isinstance(texts, str) else list(texts)
  batch = tokenizer.changed(max_length=None)(several)
  if tokenizer.max_length is not None and batch["tokens"].shape[1] > tokenizer.max_length:
    long = several[int(np.argmax(batch["valid"].sum(axis=1)))]
    raise UserError(
      f"The text {shown(long, 60)} has {batch['tokens'].shape[1]} tokens, the limit is {tokenizer.max_length}. "
      "Shorten it."
    )
  masks = batch["tokens"] == tokenizer.mask
  if not masks.any(axis=1).all():
    blank = several[int(np.argmin(masks.any(axis=1)))]
    sign = tokenizer.decode([tokenizer.mask])
    raise UserError(f"There is no {sign} in the text {blank[:60]!r}. Put it where to predict a word.")
  model, params = load(source, ignore=ignore)
  check_tokens(model, batch, str(source))

  @jax.jit
  def probabilities(params, tokens, valid, predict):
    out = model.apply(variables(params), tokens, valid=valid)
    if not isinstance(out, dict) or "mlm" not in out:
      raise UserError(f"The model of {source} has no masked language modelling head. Load one with head 'mlm'.")
    chosen = jnp.take_along_axis(out["mlm"], predict[..., None], axis=1)
    return jax.lax.top_k(jax.nn.softmax(chosen.astype(jnp.float32)), best)

  answers = []
  max_masks = int(masks.sum(axis=1).max())
  rows = min(batch_size, len(several))
  for start in range(0, len(several), rows):
    chosen = np.minimum(np.arange(start, start + rows), len(several) - 1)  # The last batch is padded.
    predict = np.argsort(~masks[chosen], axis=1, kind="stable")[:, :max_masks]  # Positions of masks, in order.
    values, tokens = map(np.asarray, probabilities(params, batch["tokens"][chosen], batch["valid"][chosen], predict))
    for row in range(min(rows, len(several) - start)):
      answers.append(
        [
          [Guess(tokenizer.decode([token]).strip(), float(p), int(token)) for p, token in zip(*guesses_at)]
          for guesses_at in list(zip(values[row], tokens[row]))[: masks[start + row].sum()]
        ]
      )
  return answers[0] if isinstance(texts, str) else answers
