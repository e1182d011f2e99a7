# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which source word made this target word?
#
# A map of cross-attention weights looks like an alignment of source and target. Is it one? This notebook trains the
# original Transformer on real phrases with a known alignment, draws the map, and checks it by intervention: it
# removes one source word at a time and measures which target words change.

# %%
import collections
import os
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import zoo

STEPS = int(os.environ.get("ZOO_STEPS", 600))
print("jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## Phrases, and their reversals
#
# Eight consecutive words of the State of the Union addresses, all among the thousand most frequent ones; the validation
# and test speeches are held out. The target is the same words in reverse order, so target word t must come from source
# word 7 - t, for all words.

# %%
LENGTH, BEGIN = 8, 0


def speeches(split):
  """The words of each speech of a split."""
  data = zoo.load_data("tfds:sotu", split)
  return [re.findall("[a-z]+", data[i]["text"].decode().lower()) for i in range(len(data))]


counts = collections.Counter(word for speech in speeches("train") for word in speech)
words = ["<begin>", *(word for word, _ in counts.most_common(1000))]
ids = {word: i for i, word in enumerate(words)}


def phrases(*splits):
  """int32 [phrases, LENGTH]: runs of frequent words."""
  rows = []
  for speech in (speech for split in splits for speech in speeches(split)):
    row = []
    for word in speech:
      row = [*row, ids[word]] if word in ids else []
      if len(row) == LENGTH:
        rows.append(row)
        row = []
  return np.array(rows, np.int32)


train, held_out = phrases("train"), phrases("validation", "test")
print(len(train), "training phrases,", len(held_out), "held out:", " ".join(words[i] for i in held_out[0]))

# %% [markdown]
# ## Train
#
# 0.3 M parameters, some 20 seconds on a CPU core.

# %% mystnb={"image": {"alt": "Nats per word fall from 7 to nearly 0 in 300 of 600 steps."}}
model = zoo.build("transformer", vocab_size=len(words), max_length=16, dim=64, depth=2, num_heads=4, start_token=BEGIN)
objective = zoo.build_objective("seq2seq", model)
optimizer = optax.chain(
  optax.clip_by_global_norm(1.0),
  optax.adam(optax.warmup_cosine_decay_schedule(0.0, 3e-3, max(STEPS // 10, 1), STEPS + 1), b2=0.98),
)


@jax.jit
def step(params, state, tokens):
  """One step of training on int32 [batch, LENGTH]."""

  def loss(params):
    return objective.reduce(objective.forward(params, {"tokens": tokens, "target_tokens": tokens[:, ::-1]}))[0]

  value, grads = jax.value_and_grad(loss)(params)
  updates, state = optimizer.update(grads, state, params)
  return optax.apply_updates(params, updates), state, value


params = jax.jit(lambda rng: model.init(rng, *model.example()))(jax.random.key(0))["params"]
state, losses, rng = optimizer.init(params), [], np.random.default_rng(0)
for _ in range(STEPS):
  params, state, value = step(params, state, train[rng.integers(len(train), size=64)])
  losses.append(float(value))

plt.figure(figsize=(5, 2.5))
plt.plot(losses)
plt.xlabel("step")
plt.ylabel("nats per word")
plt.show()

# %%
some = held_out[:200]
generated = np.asarray(zoo.generate(model, params, some, max_new_tokens=LENGTH))[:, 1:]
print(f"{(generated == some[:, ::-1]).mean():.1%} of the words of {len(some)} held-out phrases are right")

# %% [markdown]
# ## The map
#
# `zoo.capture` returns intermediate values. A decoder layer has two sets of attention weights: over the target
# (self-attention) and over the source (cross-attention).


# %% mystnb={"image": {"alt": "Attention of two layers from target to source words: both along the diagonal."}}
def cross_attention(params, source, target):
  """float32 [layers, batch, heads, target words, source words]"""
  shifted = np.concatenate([np.full_like(target[:, :1], BEGIN), target[:, :-1]], axis=1)
  _, captured = zoo.capture(model, params, source, shifted)
  names = [f"decoder/stack/layer_{layer}/cross_attention/weights" for layer in range(2)]
  return np.stack([captured[name] for name in names])


weights = cross_attention(params, some, some[:, ::-1])
assert np.allclose(weights.sum(-1), 1, atol=1e-5)
maps = weights.mean(axis=2)  # over heads: [layers, batch, target, source]


def draw(axis, picture, source, target, title):
  """One alignment, target words down, source words across."""
  axis.imshow(picture, cmap="magma")
  axis.set_xticks(range(LENGTH), [words[i] for i in source], rotation=60, ha="right")
  axis.set_yticks(range(LENGTH), [words[i] for i in target])
  axis.set_title(title)


chosen = 0
figure, axes = plt.subplots(1, len(maps), figsize=(4.5 * len(maps), 4), layout="constrained")
for layer, axis in enumerate(axes):
  draw(axis, maps[layer, chosen], some[chosen], some[chosen, ::-1], f"attention, layer {layer}")
plt.show()

# %% [markdown]
# ## The intervention
#
# Mask source word s, so that neither the encoder nor the decoder attends to it, and measure how much less likely each
# correct target word becomes. The target word that loses most depends on s: an alignment that does not rely on
# attention weights.


# %% mystnb={"image": {"alt": "Nats lost without each source word: only its own target word needs it."}}
@jax.jit
def log_probabilities(params, source, target, valid):
  """float32 [batch, LENGTH]: of each target word, given the valid source words and the target words before it."""
  shifted = jnp.concatenate([jnp.full_like(target[:, :1], BEGIN), target[:, :-1]], axis=1)
  logits = model.apply({"params": params}, source, shifted, valid=valid)["logits"]
  return jnp.take_along_axis(jax.nn.log_softmax(logits), target[..., None], axis=-1)[..., 0]


target = some[:, ::-1]
whole = log_probabilities(params, some, target, np.ones(some.shape, bool))
effect = np.zeros((len(some), LENGTH, LENGTH))
for gone in range(LENGTH):
  effect[:, :, gone] = whole - log_probabilities(params, some, target, np.arange(LENGTH)[None] != gone)

figure, axis = plt.subplots(figsize=(4.5, 4), layout="constrained")
draw(axis, effect[chosen], some[chosen], target[chosen], "nats lost without the source word")
plt.show()

# %% [markdown]
# ## Do they agree?
#
# For every target word: is the source word with the most attention the true one? And does removing that word change
# what the model generates, more than removing another one does?

# %%
truth = np.arange(LENGTH)[::-1]
rows = {f"attention, layer {layer}": maps[layer] for layer in range(len(maps))} | {"intervention": effect}
print("fraction of target words whose strongest source word is ...")
print(f"{'':22s}{'the true one':>14s}{'that of the intervention':>28s}")
for name, scores in rows.items():
  strongest = scores.argmax(-1)
  print(f"{name:22s}{(strongest == truth).mean():14.1%}{(strongest == effect.argmax(-1)).mean():28.1%}")

best = max(range(len(maps)), key=lambda layer: (maps[layer].argmax(-1) == effect.argmax(-1)).mean())


def right_without(gone):
  """How often the middle target word is still correct without source word `gone` of each phrase, int [batch]."""
  valid = np.arange(LENGTH)[None] != np.asarray(gone)[:, None]
  changed = np.asarray(zoo.generate(model, params, some, valid=valid, max_new_tokens=LENGTH))[:, 1:]
  return (changed == target)[:, LENGTH // 2].mean()


attended = maps[best, :, LENGTH // 2].argmax(-1)
other = (attended + rng.integers(1, LENGTH, len(some))) % LENGTH
print(
  f"\ntarget word {LENGTH // 2} is right with every source word in {(generated == target)[:, LENGTH // 2].mean():.1%}"
)
print(f"without the word it attends to most (layer {best})   in {right_without(attended):.1%}")
print(f"without another word, drawn at random            in {right_without(other):.1%}")
