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
# # One line changes where everything lives
#
# Eight devices, simulated on the CPU of any machine: the same code runs on a TPU slice. A *mesh* names the devices; a
# *strategy* says where each array lives on it, as a list of path patterns; `jax.jit` does the rest.

# %%
import math
import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax

import zoo
from zoo import sharding
from zoo.config import registry

print(len(jax.devices()), "devices")

# %% [markdown]
# ## A model, an objective, a training step
#
# Nothing here knows how many devices there are.

# %%
model = zoo.build("gpt", vocab_size=256, max_length=32, dim=64, depth=2, num_heads=4)
objective = registry.call("objectives", {"name": "causal_lm"}, model)
optimizer = optax.adamw(1e-3)
rng = np.random.default_rng(0)
batches = [{"tokens": rng.integers(0, 256, (16, 32)).astype(np.int32)} for _ in range(5)]


def init(key):
  params = objective.init(key, batches[0])
  return {"params": params, "opt_state": optimizer.init(params)}


def train_step(state, batch):
  (loss, _), grads = jax.value_and_grad(objective.loss, has_aux=True)(state["params"], batch)
  updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
  return {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state}, loss


# %% [markdown]
# ## Four strategies, one loss
#
# The state is *born* sharded: `jit` with `out_shardings` never makes it whole on one device.


# %%
def train(strategy, mesh_axes):
  """Five losses, and the state that they leave."""
  mesh = sharding.make_mesh(mesh_axes, jax.devices()[: math.prod(mesh_axes.values())])
  placed = sharding.shardings(jax.eval_shape(init, jax.random.key(0)), strategy, mesh)
  state = jax.jit(init, out_shardings=placed)(jax.random.key(0))
  by_row = sharding.batch_sharding(mesh)
  step = jax.jit(train_step, in_shardings=(placed, by_row), out_shardings=(placed, None), donate_argnums=0)
  losses = []
  for batch in batches:
    state, loss = step(state, sharding.put_batch(batch, mesh))
    losses.append(float(loss))
  return losses, state


runs = {
  "one device": train("replicated", {"data": 1}),
  "replicated": train("replicated", {"data": 8}),
  "fsdp": train("fsdp", {"data": 8}),
  "tensor": train("tensor", {"data": 2, "model": 4}),
  "fsdp+tensor": train("fsdp+tensor", {"data": 4, "model": 2}),
}
for name, (losses, _) in runs.items():
  print(f"{name:12}", "  ".join(f"{loss:.6f}" for loss in losses))
reference = runs["one device"][0]
assert all(np.allclose(losses, reference, rtol=1e-5) for losses, _ in runs.values())

# %% [markdown]
# ## What a device holds
#
# Bytes of the state on the first device, and the shape of one kernel's piece there.

# %%
for name, (_, state) in runs.items():
  pieces = [array.addressable_shards[0].data for array in jax.tree.leaves(state)]
  up = state["params"]["stack"]["layer_0"]["feed_forward"]["up"]["kernel"]
  here = up.addressable_shards[0].data.shape
  print(f"{name:12} {sum(piece.nbytes for piece in pieces):>9,} bytes; of up/kernel {up.shape}: {here}")

# %% [markdown]
# ## Pictures
#
# Every colour is a device; each picture is the first layer's `up` kernel, [64, 256].

# %%
figure, axes = plt.subplots(1, len(runs), figsize=(3 * len(runs), 1.9))
for axis, (name, (_, state)) in zip(axes, runs.items()):
  kernel = state["params"]["stack"]["layer_0"]["feed_forward"]["up"]["kernel"]
  owner = np.zeros(kernel.shape)
  for device, index in kernel.sharding.devices_indices_map(kernel.shape).items():
    owner[index] = device.id
  whole = kernel.sharding.is_fully_replicated
  axis.imshow(owner, cmap="tab10", vmin=0, vmax=9, aspect="auto", interpolation="nearest")
  axis.set_title(f"{name}{' (whole on each)' if whole and name != 'one device' else ''}", fontsize=9)
  axis.set_xticks([])
  axis.set_yticks([])
plt.tight_layout()
plt.show()

# %% [markdown]
# JAX draws it as text too:

# %%
jax.debug.visualize_array_sharding(runs["fsdp+tensor"][1]["params"]["stack"]["layer_0"]["feed_forward"]["up"]["kernel"])

# %% [markdown]
# ## Which rule placed what
#
# The report is plain data. `train.py` takes the same strategies by name, or a list of your own:
# `--config.sharding='[["up/kernel", [null, "model"]]]'`.

# %%
mesh = sharding.make_mesh({"data": 4, "model": 2})
for row in sharding.report(jax.eval_shape(init, jax.random.key(0))["params"], "fsdp+tensor", mesh)[:12]:
  print(row)
