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
# # The zoo in ten minutes
#
# Train a small CLIP on drawings of emoji and their names, load the run, search images by text, and look at its
# attention. The data ship with the package. Training is kept short here; the search below takes weights of the full
# run, which ship with it too.

# %%
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import matplotlib.pyplot as plt
import numpy as np

import zoo

ROOT = next(folder for folder in (pathlib.Path.cwd(), *pathlib.Path.cwd().parents) if (folder / "train.py").exists())
RUN = pathlib.Path(os.environ.get("ZOO_RUN", ROOT / "runs" / "quickstart"))
TRAINED = ROOT / "zoo" / "weights" / "clip_emoji"  # What configs/clip_emoji.py makes in 700 steps.
print("jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## What is in the zoo
#
# The published variants with their parameter counts. Without a pattern, those of every family.

# %%
zoo.list_models("clip*")

# %% [markdown]
# ## Train
#
# The same command as in a terminal. If the run was interrupted, the command resumes it; if it is finished, nothing
# happens. It says how far it is while it runs.

# %%
STEPS = int(os.environ.get("ZOO_STEPS", 60))
flags = [
  "--config=configs/clip_emoji.py",
  f"--config.steps={STEPS}",
  f"--config.workdir={RUN}",
  "--config.log.every=10",
]
command = [sys.executable, "train.py", *flags]
with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as training:
  for line in training.stdout:
    print(line, end="", flush=True)
assert training.returncode == 0

# %% [markdown]
# ## The loss curve
#
# `metrics.jsonl` holds one JSON object per logged step.

# %% mystnb={"image": {"alt": "The contrastive loss falls from step to step."}}
lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
curve = [(line["step"], line["loss"]) for line in lines if "loss" in line]
plt.figure(figsize=(6, 3))
plt.plot(*zip(*curve), ".-")
plt.xlabel("step")
plt.ylabel("loss")
plt.title("contrastive loss")
plt.show()

# %% [markdown]
# ## See what it retrieves
#
# One drawing of every concept was held out of training. The figure
# shows held-out drawings as queries with the five best names, and names with the five best drawings.

# %% mystnb={"image": {"alt": "Held-out drawings with their five nearest names, and the other way round."}}
plt.figure(figsize=(14, 14))
plt.imshow(plt.imread(RUN / "retrieval.png"))
plt.axis("off")
plt.show()

# %% [markdown]
# ## Search with your own words
#
# With the weights of the full run, which has the right name among the first ten for 47 % of these drawings. `zoo.load`
# returns a model and its parameters, `zoo.load_data` the examples that the run's model reads; `zoo.embed` maps images
# and texts into the same space.

# %% mystnb={"image": {"alt": "Four queries, each with the eight nearest drawings."}}
model, params = zoo.load(TRAINED, dtype="float32")
held_out = zoo.load_data(TRAINED, "test")
images = [held_out[i]["image"] for i in range(len(held_out))]
encoder = zoo.embedder(TRAINED)
vectors = zoo.embed(encoder, images)  # float32 [images, dim], of length 1


def search(text, best=8):
  """The indices of the held-out drawings nearest to a text."""
  return np.argsort(-(vectors @ zoo.embed(encoder, text)[0]))[:best]


queries = ["cat face", "red heart", "moon", "person"]
figure, rows = plt.subplots(len(queries), 8, figsize=(10, 5.5))
for row, query in zip(rows, queries):
  for axis, index in zip(row, search(query)):
    axis.imshow(images[index])
    axis.axis("off")
  row[0].set_title(query, loc="left")
plt.show()

# %% [markdown]
# ## Look at attention
#
# `zoo.capture` returns intermediate values by name. Below: the attention weights of the class token in the last layer,
# head by head.

# %% mystnb={"image": {"alt": "A drawing, and the attention of the class token over its patches, by head."}}
index = int(search("cat face", best=1)[0])
picture = np.float32(images[index])[None] / 127.5 - 1
_, captured = zoo.capture(model, params, picture, method="encode_image")
last = max(name for name in captured if name.endswith("self_attention/weights"))
weights = np.asarray(captured[last])  # [1, heads, tokens, tokens]
heads, grid = weights.shape[1], int((weights.shape[-1] - 1) ** 0.5)
assert np.allclose(weights.sum(-1), 1, atol=1e-5)

figure, axes = plt.subplots(1, heads + 1, figsize=(2.2 * (heads + 1), 2.4))
axes[0].imshow(images[index])
axes[0].set_title(textwrap.fill(held_out.caption(index), 18))
for head in range(heads):
  axes[head + 1].imshow(weights[0, head, 0, 1:].reshape(grid, grid), cmap="magma")
  axes[head + 1].set_title(f"head {head}")
for axis in axes:
  axis.axis("off")
plt.show()

# %% [markdown]
# ## Next
#
# `python -m zoo.evaluate --run=FOLDER` evaluates any run or published checkpoint again. `make train` trains this
# model for 700 steps instead of 60, as the weights above were.
