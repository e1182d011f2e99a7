"""Masking for masked language models: which tokens to predict, and their replacements."""

import jax
import jax.numpy as jnp


def mask_tokens(
  tokens: jax.Array,
  candidates: jax.Array,
  word_start: jax.Array | None,
  keys: jax.Array,
  *,
  slots: int,
  rate: float,
  mask_token: int,
  vocab_size: int,
  mask_rate: float,
  random_rate: float,
) -> dict[str, jax.Array]:
  """Chooses a share `rate` of each row's candidates and masks them; every row draws from its own key.

  Args:
    tokens: int32 [batch, length].
    candidates: bool [batch, length]: tokens that may be chosen.
    word_start: bool [batch, length], True where a word begins: words are chosen whole. None: single tokens.
    keys: [batch] random keys.
    slots: maximum number of tokens chosen in a row.
    rate: share of the candidates that is chosen: round(rate * candidates), at least 1 and at most `slots`.
    mask_token: replaces most of the chosen tokens.
    vocab_size: a random token is drawn from all of these.
    mask_rate, random_rate: shares of the chosen tokens that become `mask_token` and a random token; the rest stay.

  Returns:
    inputs int32 [batch, length], predict int32 [batch, slots] (positions), target int32 [batch, slots] (original
    tokens) and chosen float32 [batch, slots], 0 for unused slots.
  """

  def row(key: jax.Array, tokens: jax.Array, candidates: jax.Array, word_start: jax.Array | None) -> dict:
    choose, kind_key, draw = jax.random.split(key, 3)
    count = candidates.sum()
    budget = jnp.where(count > 0, jnp.clip(jnp.round(rate * count), 1, slots), 0).astype(jnp.int32)
    if word_start is None:
      order = jnp.argsort(jnp.where(candidates, jax.random.permutation(choose, len(tokens)), len(tokens)))
      predict, chosen = order[:slots], jnp.arange(slots) < budget
    else:
      predict, chosen = choose_words(choose, candidates, word_start, budget, slots)
    target = tokens[predict]
    kind = jax.random.uniform(kind_key, (slots,))
    other = jax.random.randint(draw, (slots,), 0, vocab_size, tokens.dtype)
    hidden = jnp.where(kind < mask_rate, mask_token, jnp.where(kind < mask_rate + random_rate, other, target))
    inputs = tokens.at[predict].set(jnp.where(chosen, hidden, target))
    return {"inputs": inputs, "predict": predict, "target": target, "chosen": chosen.astype(jnp.float32)}

  return jax.vmap(row)(keys, tokens, candidates, word_start)


def choose_words(key: jax.Array, candidates: jax.Array, word_start: jax.Array, budget: jax.Array, slots: int) -> tuple:
  """Chooses words in random order, skipping those that no longer fit into `budget` tokens, as in BERT's code.

  -> positions int32 [slots], chosen bool [slots], for one row.
  """
  length = len(candidates)
  word = jnp.cumsum(word_start | ~candidates)  # a token that is not a candidate ends the word before it
  rank = jax.random.permutation(key, length + 1)[word]
  order = jnp.argsort(jnp.where(candidates, rank, length + 1))  # stable: a word's tokens stay together
  size = jax.ops.segment_sum(candidates.astype(jnp.int32), word, length + 1)[word]
  begins = jnp.concatenate([jnp.array([True]), word[order][1:] != word[order][:-1]])

  def step(state: tuple, token: tuple) -> tuple:
    budget_left, taken = state
    begins, size, candidate = token
    taken = candidate & jnp.where(begins, size <= budget_left, taken)
    return (budget_left - jnp.where(begins & taken, size, 0), taken), taken

  _, taken = jax.lax.scan(step, (budget, jnp.array(False)), (begins, size[order], candidates[order]))
  first = jnp.argsort(~taken)[:slots]  # stable: the taken tokens first
  return order[first], taken[first]


def row_keys(key: jax.Array, tokens: jax.Array) -> jax.Array:
  """Random keys [batch] that depend only on a row's tokens, so that a row is masked alike in every batch."""
  odd = 2 * jnp.arange(tokens.shape[1], dtype=jnp.uint32) + 1
  number = (tokens.astype(jnp.uint32) * (odd * jnp.uint32(2654435761))[None]).sum(-1)  # Knuth's multiplicative hash
  return jax.vmap(jax.random.fold_in, (None, 0))(key, number)
