import functools
import random
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from zoo.checkpoints import manager
from zoo.checkpoints.manager import Checkpoints
from zoo.checkpoints.retention import best_step
from zoo.errors import UserError

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))


def init():
  params = {"up": {"kernel": jnp.linspace(-1, 1, 24).reshape(8, 3)}, "scale": jnp.ones((3,), jnp.bfloat16)}
  return {"params": params, "opt_state": OPTIMIZER.init(params), "step": jnp.zeros((), jnp.int32)}


@functools.partial(jax.jit, donate_argnums=0)
def train_step(state):
  batch = jax.random.normal(jax.random.fold_in(jax.random.key(7), state["step"]), (5, 8))

  def loss(params):
    return jnp.mean((batch @ params["up"]["kernel"] * params["scale"][None] - 1) ** 2)

  updates, opt_state = OPTIMIZER.update(jax.grad(loss)(state["params"]), state["opt_state"], state["params"])
  return {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state, "step": state["step"] + 1}


def abstract(state, placement=None):
  def describe(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement(leaf) if placement else None)

  return jax.tree.map(describe, jax.eval_shape(lambda: state))


def equal(left, right):
  same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(np.asarray(a), np.asarray(b)), left, right)
  return jax.tree.structure(left) == jax.tree.structure(right) and jax.tree.all(same)


def saved(folder, *steps, state=None, **options):
  checkpoints_ = Checkpoints(folder, **options)
  for step in steps:
    checkpoints_.save(step, init() if state is None else state)
  checkpoints_.close()
  return folder


def mesh(*sizes):
  devices = jax.devices()[: int(np.prod(sizes))]
  return jax.make_mesh(sizes, ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def rows(over):
  """Shards the first axis of arrays with 8 rows, and replicates others."""
  return lambda leaf: NamedSharding(over, P(("data", "model")) if leaf.shape[:1] == (8,) else P())


@pytest.mark.parametrize("interrupted", [1, 2, 3, 4])
def test_a_run_resumed_from_any_step_ends_with_the_same_bits(tmp_path, interrupted):
  state = whole = init()
  for _ in range(5):
    whole = train_step(whole)
  state = init()
  first = Checkpoints(tmp_path)
  for step in range(1, interrupted + 1):
    state = train_step(state)
    first.save(step, state)
  first.close()

  state, step = Checkpoints(tmp_path).restore(abstract(init()))
  assert step == interrupted
  for _ in range(step, 5):
    state = train_step(state)
  assert equal(state, whole)


def test_what_is_saved_in_the_background_is_not_touched_by_the_next_donated_step(tmp_path):
  state = {"x": jnp.zeros((1000, 1000))}
  add_one = jax.jit(lambda state: {"x": state["x"] + 1}, donate_argnums=0)
  keeper = Checkpoints(tmp_path, keep=9)
  for step in range(9):
    keeper.save(step, state)
    for _ in range(3):
      state = add_one(state)
  keeper.close()
  for step in range(9):
    assert np.all(np.asarray(manager.read_state(tmp_path / str(step), abstract(state))["x"]) == 3 * step)


@pytest.mark.parametrize("sizes", [(1, 1), (4, 1), (1, 4), (2, 4), (8, 1)])
def test_restores_on_another_mesh_and_number_of_devices(tmp_path, sizes):
  state = train_step(init())
  placed = jax.device_put(state, jax.tree.map(rows(mesh(4, 2)), state))
  saved(tmp_path, 1, state=placed)
  wanted = abstract(state, rows(mesh(*sizes)))
  restored, _ = Checkpoints(tmp_path).restore(wanted)
  assert equal(restored, state)
  assert all(leaf.sharding == want.sharding for leaf, want in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted)))


def test_numbers_and_numpy_arrays_come_back_as_what_they_were(tmp_path):
  state = {"count": 7, "rate": 0.1, "table": np.arange(5, dtype=np.int16), "step": jnp.int32(3)}
  restored, _ = Checkpoints(saved(tmp_path, 3, state=state)).restore(state)
  assert restored["count"] == 7 and restored["rate"] == 0.1
  assert type(restored["table"]) is np.ndarray and equal(restored["table"], state["table"])


def test_reads_the_parameters_alone(tmp_path):
  state = train_step(init())
  saved(tmp_path, 1, state=state)
  read = manager.read_state(tmp_path / "1", {"params": abstract(state)["params"]})
  assert equal(read, {"params": state["params"]})


def test_an_empty_folder_has_nothing_to_restore(tmp_path):
  keeper = Checkpoints(tmp_path / "new")
  assert keeper.restore(abstract(init())) is None
  assert keeper.latest is None


def test_saving_a_step_twice_keeps_the_first(tmp_path):
  keeper = Checkpoints(tmp_path)
  assert keeper.save(3, {"x": jnp.zeros(2)}, wait=True)
  assert not keeper.save(3, {"x": jnp.ones(2)}, wait=True)
  assert equal(keeper.restore({"x": jnp.ones(2)})[0], {"x": jnp.zeros(2)})


@pytest.mark.parametrize(
  "mode, values, kept",
  [
    ("max", [1, 5, 2, 3], [20, 30, 40]),
    ("min", [1, 5, 2, 3], [10, 30, 40]),
    ("max", [5, 5, 2, 3], [20, 30, 40]),
    ("max", [2, float("nan"), None, 1], [10, 30, 40]),
    ("min", [float("nan"), float("-inf"), None, None], [30, 40]),
  ],
)
def test_keeps_the_newest_and_the_best(tmp_path, mode, values, kept):
  keeper = Checkpoints(tmp_path, best="eval/r1", best_mode=mode)
  for step, value in zip([10, 20, 30, 40], values):
    keeper.save(step, {"x": jnp.zeros(2)}, {} if value is None else {"eval/r1": jnp.float32(value), "loss": 1.0})
  keeper.close()
  assert manager.steps(tmp_path) == kept


def test_remembers_the_best_of_the_run_before_the_interruption(tmp_path):
  for first, value in [(10, 9.0), (20, 1.0), (30, 2.0), (40, 3.0)]:
    keeper = Checkpoints(tmp_path, best="r1")
    keeper.save(first, {"x": jnp.zeros(2)}, {"r1": value})
    keeper.close()
  assert manager.steps(tmp_path) == [10, 30, 40]
  assert best_step(manager.scores(tmp_path)) == 10


def test_scores_by_another_metric_do_not_compete():
  loss = {step: {"name": "loss", "mode": "min", "value": value} for step, value in [(1, 0.1), (2, 0.2)]}
  accuracy = {step: {"name": "accuracy", "mode": "max", "value": value} for step, value in [(3, 0.01), (4, 0.0)]}
  assert best_step(loss) == 1
  assert best_step({**loss, **accuracy}) == 3
  assert best_step({5: None}) is None


def test_a_misspelt_best_metric_is_told_and_the_checkpoint_is_kept(tmp_path):
  keeper = Checkpoints(tmp_path, best="eval/r1")
  keeper.save(1, {"x": jnp.zeros(2)}, {})
  with pytest.raises(UserError, match=r"checkpoint.best is 'eval/r1', never measured. Did you mean 'eval/r10'\?"):
    keeper.save(2, {"x": jnp.zeros(2)}, {"eval/r10": 1.0, "loss": 2.0})
  assert manager.steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("name", ["03", "3.0", "step_3", "3-copy"])
def test_a_checkpoint_whose_folder_is_not_named_by_its_step_is_named(tmp_path, name):
  saved(tmp_path, 3)
  (tmp_path / "3").rename(tmp_path / name)
  with pytest.raises(UserError, match=f"/{name} is a checkpoint, but its name is no step, and there is no other"):
    Checkpoints(tmp_path).restore(abstract(init()))
  saved(tmp_path, 5)
  notes = []
  assert Checkpoints(tmp_path, note=notes.append).restore(abstract(init()))[1] == 5
  assert len(notes) == 1 and f"/{name} is a checkpoint, but its name is no step: not used." in notes[0]


def test_a_torn_folder_is_ignored_and_taken_away(tmp_path):
  saved(tmp_path, 1)
  (tmp_path / "2.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  assert manager.steps(tmp_path) == [1]
  keeper = Checkpoints(tmp_path)
  assert keeper.latest == 1
  keeper.save(3, init(), wait=True)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


SAVES_FOR_EVER = """
import itertools, sys
import jax.numpy as jnp
from zoo.checkpoints.manager import Checkpoints
keeper = Checkpoints(sys.argv[1], keep=1)
restored = keeper.restore({"a": jnp.zeros((700, 700)), "b": jnp.zeros((300, 300)), "step": jnp.int32(0)})
first = 0 if restored is None else restored[1]
for step in itertools.count(first + 1):
  a, b = jnp.full((700, 700), 1.0 * step), jnp.full((300, 300), 1.0 * step)
  keeper.save(step, {"a": a, "b": b, "step": jnp.int32(step)})
  print(step, flush=True)
"""


@pytest.mark.slow
def test_a_run_killed_while_saving_leaves_a_consistent_newest_checkpoint(tmp_path):
  reached = 0
  for _ in range(3):
    run = subprocess.Popen([sys.executable, "-c", SAVES_FOR_EVER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert int(run.stdout.readline()) == reached + 1  # Resumes from the newest checkpoint.
    run.stdout.readline()  # Saving waits for the previous checkpoint.
    time.sleep(random.uniform(0, 0.3))
    run.send_signal(signal.SIGKILL)
    run.communicate()
    newest = max(manager.steps(tmp_path))
    assert newest > reached
    wanted = {"a": jnp.zeros((700, 700)), "b": jnp.zeros((300, 300)), "step": jnp.int32(0)}
    state = manager.read_state(tmp_path / str(newest), wanted)
    assert all(np.all(np.asarray(leaf) == newest) for leaf in jax.tree.leaves(state))
    reached = newest


def test_another_model_is_refused_naming_what_differs(tmp_path):
  keeper = Checkpoints(saved(tmp_path, 4))
  wanted = abstract(init())
  wanted["params"]["up"]["kernel"] = jax.ShapeDtypeStruct((8, 5), jnp.float32)
  wanted["params"]["new"] = jax.ShapeDtypeStruct((2,), jnp.float32)
  del wanted["params"]["scale"]
  with pytest.raises(UserError) as error:
    keeper.restore(wanted)
  assert re.search(
    r"4 holds another model or optimizer: 1 missing \(params/new\); 1 extra \(params/scale\); "
    r"1 different \(params/up/kernel float32 \(8, 3\) instead of float32 \(8, 5\)\)",
    str(error.value),
  )


def test_another_dtype_is_refused_not_cast(tmp_path):
  keeper = Checkpoints(saved(tmp_path, 4))
  wanted = {**abstract(init()), "step": jax.ShapeDtypeStruct((), jnp.float32)}
  with pytest.raises(UserError, match=r"1 different \(step int32 \(\) instead of float32 \(\)\)"):
    keeper.restore(wanted)


def test_a_folder_that_cannot_be_used_is_told(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file is a file, so no checkpoints can be kept there"):
    Checkpoints(tmp_path / "file")
  with pytest.raises(UserError, match="Keep at least 1; best_mode is 'max' or 'min'"):
    Checkpoints(tmp_path, keep=0)
