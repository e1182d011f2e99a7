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
# A map of cross-attention looks like an alignment of source and target. Is it one? This notebook trains the original
# Transformer on real phrases with a known alignment, draws the map, and then checks it by intervention: it takes a
# source word away and sees which target words change.

# %%
import collections
import json
import os
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import zoo
from zoo.data import shipped
from zoo.objectives.seq2seq import seq2seq

STEPS = int(os.environ.get("ZOO_STEPS", 600))
print("jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## Phrases, and the same phrases backwards
#
# Eight words in a row of the State of the Union addresses, out of the thousand most frequent ones; the last 24 speeches
# of the file are held out. The target says the words in the opposite order, so target word t must come from source word
# 7 - t, whatever the words are.

# %%
LENGTH, BEGIN = 8, 0
speeches = [re.findall("[a-z]+", json.loads(line)["text"].lower()) for line in shipped.lines("sotu/speeches.jsonl.xz")]
counts = collections.Counter(word for speech in speeches[:-24] for word in speech)
words = ["<begin>", *(word for word, _ in counts.most_common(1000))]
ids = {word: i for i, word in enumerate(words)}


def phrases(speeches):
  """int32 [phrases, LENGTH], of words that all are among the frequent ones."""
  rows = []
  for speech in speeches:
    row = []
    for word in speech:
      row = [*row, ids[word]] if word in ids else []
      if len(row) == LENGTH:
        rows.append(row)
        row = []
  return np.array(rows, np.int32)


train, held_out = phrases(speeches[:-24]), phrases(speeches[-24:])
print(len(train), "phrases to learn from,", len(held_out), "held out:", " ".join(words[i] for i in held_out[0]))

# %% [markdown]
# ## Train
#
# 0.3 M parameters, some 20 seconds on a CPU core.

# %%
model = zoo.build("transformer", vocab_size=len(words), max_length=16, dim=64, depth=2, num_heads=4, start_token=BEGIN)
objective = seq2seq(model)
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
said = np.asarray(zoo.generate(model, params, some, max_new_tokens=LENGTH))[:, 1:]
print(f"{(said == some[:, ::-1]).mean():.1%} of the words of {len(some)} held-out phrases are right")

# %% [markdown]
# ## The map
#
# `zoo.capture` gives what a model computed on the way. A layer of the decoder has two sets of attention weights: of
# itself, and of the source.


# %%
def cross_attention(params, source, target):
  """float32 [layers, batch, heads, target words, source words]"""
  seen_before = np.concatenate([np.full_like(target[:, :1], BEGIN), target[:, :-1]], axis=1)
  _, seen = zoo.capture(model, params, source, seen_before)
  names = [f"decoder/stack/layer_{layer}/cross_attention/weights" for layer in range(2)]
  return np.stack([seen[name] for name in names])


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
# Take source word s away, so that neither the encoder nor the decoder can look at it, and see how much less likely
# every right target word becomes. What falls most when s is gone was made of s: an alignment that does not rest on
# attention weights.


# %%
@jax.jit
def log_probabilities(params, source, target, valid):
  """float32 [batch, LENGTH]: of each target word, given the source words that are valid and the target before it."""
  seen_before = jnp.concatenate([jnp.full_like(target[:, :1], BEGIN), target[:, :-1]], axis=1)
  logits = model.apply({"params": params}, source, seen_before, valid=valid)["logits"]
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
# For every target word: is the source word with the most attention the one that it was made of? And does the text that
# the model writes change when that word is removed, more than when another one is?

# %%
truth = np.arange(LENGTH)[::-1]
rows = {f"attention, layer {layer}": maps[layer] for layer in range(len(maps))} | {"intervention": effect}
print("share of target words whose strongest source word is ...")
print(f"{'':22s}{'the true one':>14s}{'that of the intervention':>28s}")
for name, found in rows.items():
  strongest = found.argmax(-1)
  print(f"{name:22s}{(strongest == truth).mean():14.1%}{(strongest == effect.argmax(-1)).mean():28.1%}")

best = max(range(len(maps)), key=lambda layer: (maps[layer].argmax(-1) == effect.argmax(-1)).mean())


def right_without(gone):
  """How often the middle target word is still right when each phrase loses its source word `gone`, int [batch]."""
  valid = np.arange(LENGTH)[None] != np.asarray(gone)[:, None]
  new = np.asarray(zoo.generate(model, params, some, valid=valid, max_new_tokens=LENGTH))[:, 1:]
  return (new == target)[:, LENGTH // 2].mean()


attended = maps[best, :, LENGTH // 2].argmax(-1)
other = (attended + rng.integers(1, LENGTH, len(some))) % LENGTH
print(f"\ntarget word {LENGTH // 2} is right with every source word in {(said == target)[:, LENGTH // 2].mean():.1%}")
print(f"without the word it attends to most (layer {best})   in {right_without(attended):.1%}")
print(f"without another word, drawn at random            in {right_without(other):.1%}")
