#!/usr/bin/env bash
# On CPUs jax 0.7.2 waits for a running program when the last reference to an array that was donated to it is dropped:
# in `state = step(state)` it is the assignment that takes as long as the step, while the call returns at once. With
# jax 0.10.2 the assignment takes no time, and block_until_ready waits, as one expects of asynchronous dispatch.
# Seen: 0.7.2 call 0 ms, assignment 1,144 ms, block_until_ready 0 ms; 0.10.2 call 18 ms, 0 ms, 1,269 ms.
# Who times parts of a training step (waiting for data, dispatch, waiting for the device) finds most of it in none of
# them with the jax that Colab installs, and a loop that prepares the next batch after the assignment prepares it late.
# The way round: keep another reference to the old state until after what should overlap, and drop it where one waits.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/donate.py" <<'PYTHON'
import functools
import sys
import time

import jax
import jax.numpy as jnp


@functools.partial(jax.jit, donate_argnums=0)
def step(x):
  for _ in range(6):
    x = x @ x / 40
  return x


x = step(jnp.ones((1500, 1500)) / 40)
jax.block_until_ready(x)
times = [time.perf_counter()]
y = step(x)
times.append(time.perf_counter())
x = y  # The last reference to the donated array goes.
times.append(time.perf_counter())
jax.block_until_ready(x)
times.append(time.perf_counter())
call, assignment, block = (end - start for start, end in zip(times, times[1:]))
print(f"jax {jax.__version__}: call {call:.3f} s, assignment {assignment:.3f} s, block_until_ready {block:.3f} s")
where = "assignment" if assignment > 10 * block else "block_until_ready" if block > 10 * assignment else "both"
sys.exit(where != sys.argv[1])
PYTHON

check() { # check VERSION WHERE: the step is waited for there.
  python3 -m venv "$folder/$1"
  "$folder/$1/bin/pip" install --quiet --disable-pip-version-check "jax==$1" "jaxlib==$1" "numpy==2.1.3"
  JAX_PLATFORMS=cpu "$folder/$1/bin/python" "$folder/donate.py" "$2"
}
check 0.7.2 assignment
check 0.10.2 block_until_ready
