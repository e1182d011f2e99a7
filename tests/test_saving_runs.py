import json

import jax
import jax.numpy as jnp
import pytest

from tests.test_saving import SIZES, equal, gpt, params_of
from zoo.checkpoints.manager import Checkpoints
from zoo.errors import UserError
from zoo.hub.writing import save_hf
from zoo.layers.stack import stack_layers
from zoo.saving import load, save
from zoo.train.initial import load_into


def run_folder(folder, *steps, scan=None, ema=False, best=None, values=()):
  """An unfinished run whose parameters at step n are those of seed n (their average: of seed 100 + n)."""
  model = gpt(scan=scan)
  (folder / "config.json").write_text(json.dumps({"model": {"family": "gpt", **SIZES, "scan": scan}, "steps": 9}))
  keeper = Checkpoints(folder / "checkpoints", keep=9, best=best)
  for step, value in zip(steps, [*values, *[None] * len(steps)]):
    state = {"params": params_of(model, step), "opt_state": {"count": jnp.int32(step)}, "step": jnp.int32(step)}
    if ema:
      state["ema"] = params_of(model, 100 + step)
    keeper.save(step, state, None if value is None else {best: value})
  keeper.close()
  return model


@pytest.mark.parametrize("scan", [False, True])
def test_an_unfinished_run_loads_its_newest_checkpoint(tmp_path, scan):
  model = run_folder(tmp_path, 1, 2, scan=scan)
  loaded, params = load(tmp_path)
  assert loaded == model and equal(params, params_of(model, 2))
  assert equal(load(tmp_path, step=1)[1], params_of(model, 1))


def test_an_unfinished_run_loads_averaged_parameters_if_it_has_them(tmp_path):
  model = run_folder(tmp_path, 1, ema=True)
  assert equal(load(tmp_path)[1], params_of(model, 101))


def test_the_best_checkpoint_is_loaded(tmp_path):
  model = run_folder(tmp_path, 1, 2, 3, best="r1", values=[0.1, 0.3, 0.2])
  assert equal(load(tmp_path, best=True)[1], params_of(model, 2))


def test_a_score_that_cannot_be_read_is_told(tmp_path):
  run_folder(tmp_path, 1, 2, best="r1", values=[0.1, 0.3])
  (tmp_path / "checkpoints" / "2" / "metrics" / "metrics").write_text("{")
  with pytest.raises(UserError, match="checkpoints/2 cannot be read: .* Take another checkpoint"):
    load(tmp_path, best=True)


def test_a_run_without_the_checkpoint_asked_for_is_told(tmp_path):
  run_folder(tmp_path)
  with pytest.raises(UserError, match="checkpoints has no finished checkpoint yet"):
    load(tmp_path)
  run_folder(tmp_path, 1, 2)
  with pytest.raises(UserError, match="has no checkpoint of step 5. It has: 1, 2."):
    load(tmp_path, step=5)
  with pytest.raises(UserError, match="has a score. Name a metric as checkpoint.best in the config"):
    load(tmp_path, best=True)


@pytest.mark.parametrize("scan", [False, True])
def test_training_may_start_from_another_run(tmp_path, scan):
  save(tmp_path, gpt(), params_of(gpt(), 5))
  model = gpt(scan=scan)
  state = {"params": params_of(model), "ema": params_of(model), "step": jnp.int32(0)}
  started = load_into(tmp_path, state)
  wanted = stack_layers(params_of(gpt(), 5)) if scan else params_of(gpt(), 5)
  assert equal(started, {"params": wanted, "ema": wanted, "step": jnp.int32(0)})
  # Both may be donated: they share no buffer.
  jax.block_until_ready(jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(started))


def test_training_may_leave_entries_of_a_published_model_unread(tmp_path):
  save_hf(tmp_path, gpt(), params_of(gpt(), 5))
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**config, "scale_attn_weights": False}))
  state = {"params": params_of(gpt())}
  with pytest.raises(UserError, match="scale_attn_weights is False"):
    load_into(tmp_path, state)
  started = load_into({"source": tmp_path, "ignore": ["scale_attn_weights"]}, state)
  assert equal(started["params"], params_of(gpt(), 5))


def test_training_may_not_start_from_another_model(tmp_path):
  save(tmp_path, gpt(), params_of(gpt()))
  with pytest.raises(UserError, match=r"holds another model than the one to train: 16 extra \(stack/layer_2/"):
    load_into(tmp_path, {"params": params_of(gpt(depth=2))})
