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
# # Sharding in one line
#
# Eight devices, simulated on a CPU: the same code runs on a TPU slice. A *mesh* names the axes of the devices; a
# *strategy* maps parameter paths to placements on that mesh; `jax.jit` does the rest.

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

print(len(jax.devices()), "devices")

# %% [markdown]
# ## A model, an objective, a training step
#
# Nothing in this cell depends on the number of devices.

# %%
model = zoo.build("gpt", vocab_size=256, max_length=32, dim=64, depth=2, num_heads=4)
objective = zoo.build_objective("causal_lm", model)
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
# The state is initialised into its shardings: with `out_shardings`, no device ever holds all of it.


# %%
def train(strategy, mesh_axes):
  """Five training steps: their losses, and the final state."""
  mesh = sharding.make_mesh(mesh_axes, jax.devices()[: math.prod(mesh_axes.values())])
  state_shardings = sharding.shardings(jax.eval_shape(init, jax.random.key(0)), strategy, mesh)
  state = jax.jit(init, out_shardings=state_shardings)(jax.random.key(0))
  in_shardings = (state_shardings, sharding.batch_sharding(mesh))
  step = jax.jit(train_step, in_shardings=in_shardings, out_shardings=(state_shardings, None), donate_argnums=0)
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
# ## What one device holds
#
# Bytes of the state on the first device, and the shape of its shard of one kernel.

# %%
for name, (_, state) in runs.items():
  shards = [array.addressable_shards[0].data for array in jax.tree.leaves(state)]
  up = state["params"]["stack"]["layer_0"]["feed_forward"]["up"]["kernel"]
  shard = up.addressable_shards[0].data.shape
  print(f"{name:12} {sum(shard.nbytes for shard in shards):>9,} bytes; up/kernel {up.shape} -> {shard}")

# %% [markdown]
# ## Figures
#
# One colour per device. Each figure is the first layer's `up` kernel, [64, 256].

# %% mystnb={"image": {"alt": "Which device holds which part of a kernel: one, replicated, fsdp, tensor, fsdp+tensor."}}
figure, axes = plt.subplots(2, 3, figsize=(7, 3.5))
axes[-1, -1].axis("off")
for axis, (name, (_, state)) in zip(axes.flat, runs.items()):
  kernel = state["params"]["stack"]["layer_0"]["feed_forward"]["up"]["kernel"]
  owner = np.zeros(kernel.shape)
  for device, index in kernel.sharding.devices_indices_map(kernel.shape).items():
    owner[index] = device.id
  replicated = kernel.sharding.is_fully_replicated and name != "one device"
  axis.imshow(owner, cmap="tab10", vmin=0, vmax=9, aspect="auto", interpolation="nearest")
  axis.set_title(f"{name}{' (a copy on each)' if replicated else ''}", fontsize=9)
  axis.set_xticks([])
  axis.set_yticks([])
plt.tight_layout()
plt.show()

# %% [markdown]
# JAX draws it as text, too:

# %%
jax.debug.visualize_array_sharding(runs["fsdp+tensor"][1]["params"]["stack"]["layer_0"]["feed_forward"]["up"]["kernel"])

# %% [markdown]
# ## The sharding report
#
# Which rule placed which parameter, as plain data. `train.py` takes the same strategies by name, or your own rules:
# `--config.sharding='[["up/kernel", [null, "model"]]]'`.

# %%
mesh = sharding.make_mesh({"data": 4, "model": 2})
for row in sharding.report(jax.eval_shape(init, jax.random.key(0))["params"], "fsdp+tensor", mesh)[:12]:
  print(row)
