#!/usr/bin/env bash
# jax 0.10.2 on CPU: the random bits of dropout are most of what a training step of a small model costs to compile. Each
# mask is a whole unrolled generator in the program, and the rbg generator, which is one instruction elsewhere, is expanded
# to the same size on CPU: changing jax_default_prng_impl does not help.
# Seen: the gradient of 12 layers of a product and a GELU compiles to 84,000 characters of HLO in .15 CPU-seconds without
# dropout, to 750,000 in .87 with threefry2x32 and to 730,000 in .76 with rbg.
# Users care who run tests, notebooks or the first step on CPU: with dropout 0 they start five times sooner; layers that
# are scanned (one body, one generator) do not pay for each.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/compile.py" <<'PYTHON'
import sys
import time

import jax
import jax.numpy as jnp


def gradient(weights, inputs, key, dropout):
  def loss(weights):
    hidden = inputs
    for layer in range(12):
      hidden = jax.nn.gelu(hidden @ weights)
      if dropout:
        keep = jax.random.bernoulli(jax.random.fold_in(key, layer), 0.9, hidden.shape)
        hidden = jnp.where(keep, hidden / 0.9, 0)
    return jnp.sum(hidden**2)

  return jax.grad(loss)(weights)


def compiled(implementation, dropout):
  arguments = jnp.ones((64, 64)), jnp.ones((32, 64)), jax.random.key(0, impl=implementation)
  lowered = jax.jit(gradient, static_argnames="dropout").lower(*arguments, dropout=dropout)
  start = time.process_time()
  size = len(lowered.compile().as_text())
  print(f"{implementation:12} dropout {dropout!s:5} {size:7,} characters, {time.process_time() - start:.2f} CPU-seconds")
  return size


sizes = {(name, dropout): compiled(name, dropout) for name in ("threefry2x32", "rbg") for dropout in (False, True)}
sys.exit(not all(sizes[name, True] > 5 * sizes[name, False] for name in ("threefry2x32", "rbg")))
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/compile.py"
