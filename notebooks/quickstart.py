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
# Train a small CLIP on drawings of emoji and their names, load the finished run, look at what it finds, and look
# inside. The data ship with the package. The training below is a short one; `ZOO_RUN` may name a longer, finished run.

# %% [markdown]
# ## Install
#
# In Colab this cell fetches the zoo and installs it beside the JAX that is there: nothing of Colab's is upgraded.
# Elsewhere it does nothing: `make train` or `pip install -e .` has made the environment.

# %%
import os
import subprocess
import sys

if "google.colab" in sys.modules:
  SOURCE = "https://github.com/OWNER/flax-zoo"  # Where your copy of the zoo is.
  subprocess.run(["git", "clone", "--depth=1", SOURCE, "zoo-source"], check=True)
  pip = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade-strategy=only-if-needed"]
  subprocess.run([*pip, "-e", "zoo-source"], check=True)
  os.chdir("zoo-source")
  sys.path.insert(0, ".")

# %%
import json
import pathlib
import textwrap

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import zoo

ROOT = pathlib.Path.cwd() if pathlib.Path("train.py").exists() else pathlib.Path.cwd().parent
RUN = pathlib.Path(os.environ.get("ZOO_RUN", ROOT / "runs" / "quickstart"))
print("jax", jax.__version__, "on", jax.devices())

# %% [markdown]
# ## What there is
#
# Published sizes with their numbers of parameters; without a pattern, those of every family.

# %%
zoo.list_models("clip*")

# %% [markdown]
# ## Train
#
# The same line as in a terminal. It changes nothing if the run is finished, and goes on if it was interrupted.

# %%
STEPS = int(os.environ.get("ZOO_STEPS", 150))
flags = [
  "--config=configs/clip_emoji.py",
  f"--config.steps={STEPS}",
  f"--config.workdir={RUN}",
  "--config.log.every=10",
]
done = subprocess.run([sys.executable, "train.py", *flags], cwd=ROOT, capture_output=True, text=True)
print(done.stdout[-2500:], done.stderr[-2000:] if done.returncode else "")
assert done.returncode == 0

# %% [markdown]
# ## The curve
#
# `metrics.jsonl` holds one line per measurement.

# %%
lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
curve = [(line["step"], line["loss"]) for line in lines if "loss" in line]
plt.figure(figsize=(6, 3))
plt.plot(*zip(*curve), ".-")
plt.xlabel("step")
plt.ylabel("loss")
plt.title("contrastive loss")
plt.show()

# %% [markdown]
# ## Load, and look at retrievals
#
# A finished run is two files: how to build the model, and its parameters. Of every concept one drawing was held out;
# the picture shows held-out drawings as queries with their first five names, and names with their first five drawings.

# %%
model, params = zoo.load(RUN)
plt.figure(figsize=(14, 14))
plt.imshow(plt.imread(RUN / "retrieval.png"))
plt.axis("off")
plt.show()

# %% [markdown]
# ## Ask it something of your own
#
# The images and texts of a data source are records; the model embeds both into the same space.

# %%
from zoo.data.image_text import image_text
from zoo.data.tokenizers import tokenizer

config = json.loads((RUN / "config.json").read_text())
section = {key: value for key, value in config["data"].items() if key not in ("name", "augment", "split")}
held_out = image_text(split="test", **section)
images = np.stack([held_out[i]["image"] for i in range(len(held_out))])
embed = jax.jit(lambda image: model.apply({"params": params}, image, method="encode_image"))
vectors = jnp.concatenate([embed(jnp.asarray(part) / 127.5 - 1) for part in np.array_split(images, 8)])

# %%
bpe = tokenizer("clip")


def search(text, best=8):
  """The held-out drawings nearest to a text."""
  ids = [bpe.bos, *bpe.encode(text), bpe.eos][: section["max_length"]]
  tokens = np.zeros((1, section["max_length"]), np.int32)
  tokens[0, : len(ids)] = ids
  query = model.apply({"params": params}, tokens, method="encode_text")[0]
  return np.argsort(-np.asarray(vectors @ query))[:best]


queries = ["red heart", "cat face", "tree", "musical instrument"]
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
# `zoo.capture` gives what a model computes on the way, by name. Below, where the class token of the last layer looks,
# head by head.

# %%
index = int(search("cat face", best=1)[0])
picture = jnp.asarray(images[index : index + 1]) / 127.5 - 1
_, seen = zoo.capture(model, params, picture, method="encode_image")
last = max(name for name in seen if name.endswith("self_attention/weights"))
weights = np.asarray(seen[last])  # [1, heads, tokens, tokens]
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
# ## Evaluate again, alone
#
# In a terminal: `python -m zoo.evaluate --run=FOLDER`. As functions: an evaluator takes parameters and gives numbers.

# %%
from zoo.evaluate import evaluators, run

measured = run(evaluators(config["eval"], model, config["data"]), params)
{name: round(value, 4) for name, value in measured.items() if "r10" in name}
