#!/usr/bin/env bash
# optax 0.2.8: warmup_cosine_decay_schedule raises TracerBoolConversionError when its peak_value is a traced array; the
# nine other schedules that have a rate take one (constant, cosine, linear, polynomial, exponential, warm-up to constant and
# to exponential, both one-cycle schedules). It compares the peak with nought in Python to find its alpha.
# Seen: jax.jit(lambda peak: schedule(peak)(5))(0.1) gives a rate for nine of ten; so do jax.vmap over peaks and an
# optimiser built inside jit from a rate that is an argument. jax 0.10.2.
# Users care who sweep learning rates by vmap, or keep them as an argument of a compiled step so as not to compile again:
# the commonest schedule of all is the one that does not go. optax.join_schedules of a linear and a cosine one does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/peaks.py" <<'PYTHON'
import sys

import jax
import optax

SCHEDULES = {
  "constant": optax.constant_schedule,
  "cosine": lambda peak: optax.cosine_decay_schedule(peak, 100),
  "linear": lambda peak: optax.linear_schedule(peak, 0.0, 100),
  "polynomial": lambda peak: optax.polynomial_schedule(peak, 0.0, 1, 100),
  "exponential": lambda peak: optax.exponential_decay(peak, 10, 0.9),
  "warm-up, constant": lambda peak: optax.warmup_constant_schedule(0.0, peak, 10),
  "warm-up, exponential": lambda peak: optax.warmup_exponential_decay_schedule(0.0, peak, 10, 10, 0.9),
  "cosine one-cycle": lambda peak: optax.cosine_onecycle_schedule(100, peak),
  "linear one-cycle": lambda peak: optax.linear_onecycle_schedule(100, peak),
  "warm-up, cosine": lambda peak: optax.warmup_cosine_decay_schedule(0.0, peak, 10, 100),
  "joined warm-up and cosine": lambda peak: optax.join_schedules(
    [optax.linear_schedule(0.0, peak, 10), optax.cosine_decay_schedule(peak, 90)], [10]
  ),
}
refused = []
for name, schedule in SCHEDULES.items():
  try:
    print(f"{name:26}", jax.jit(lambda peak: schedule(peak)(5))(0.1))
  except jax.errors.TracerBoolConversionError as error:
    print(f"{name:26}", type(error).__name__)
    refused.append(name)
sys.exit(refused != ["warm-up, cosine"])
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
JAX_PLATFORMS=cpu "$folder/venv/bin/python" "$folder/peaks.py"
