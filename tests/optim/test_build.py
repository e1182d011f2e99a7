import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zoo import optim
from zoo.errors import UserError
from zoo.optim.optimizers import OPTIMIZERS
from zoo.tree import flatten, path_names


def params(seed=0):
  """Names and dimensions of a model's arrays: a loop of one layer, and a scanned stack of two."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: np.asarray(rng.normal(size=shape), np.float32)
  layer = lambda *front: {
    "self_attention": {
      "query": {"kernel": normal(*front, 6, 3, 2), "bias": normal(*front, 3, 2)},
      "out": {"kernel": normal(*front, 3, 2, 6)},
    },
    "feed_forward": {"up": {"kernel": normal(*front, 6, 10)}},
    "mlp_norm": {"scale": normal(*front, 6)},
  }
  return {
    "image": {"stack": {"layer_0": layer()}},
    "text": {"embed": {"embedding": normal(11, 6)}, "stack": {"layers": layer(2)}},
    "head": {"kernel": normal(6, 5), "bias": normal(5)},
    "logit_scale": normal(),
  }


def update(tree, grads=None, steps=10, repeat=1, **options):
  """-> the updates of the last of `repeat` steps, as path -> array, and the optimiser's state."""
  transform, _ = optim.optimizer(tree, steps, **{"learning_rate": 0.1, "schedule": "constant", **options})
  updates, state = updated(transform, tree, params(1) if grads is None else grads, repeat)
  return flatten(updates), state


def updated(transform, tree, grads, repeat=1):
  """-> the updates of the last of `repeat` steps and the state, as one program."""

  @jax.jit
  def run(tree, grads):
    state = transform.init(tree)
    for _ in range(repeat):
      updates, state = transform.update(grads, state, tree)
    return updates, state

  return jax.device_get(run(tree, grads))


def assert_equal(got, want):
  for path, x in flatten(want).items():
    np.testing.assert_allclose(got[path], x, rtol=1e-5, atol=1e-7, err_msg=path)


@pytest.mark.parametrize(
  "options, same",
  [
    ({"name": "adamw", "b2": 0.95, "eps": 1e-6}, optax.adam(0.1, b2=0.95, eps=1e-6)),
    ({"name": "lion"}, optax.lion(0.1, weight_decay=0.0)),
    ({"name": "sgd", "momentum": 0.5, "nesterov": True}, optax.sgd(0.1, 0.5, nesterov=True)),
    ({"name": "sgd", "momentum": 0.0}, optax.sgd(0.1)),
    ({"name": "adafactor", "min_dim_size_to_factor": 5}, optax.adafactor(0.1, min_dim_size_to_factor=5)),
  ],
)
def test_is_what_optax_computes(options, same):
  tree, grads = params(), params(1)
  assert_equal(update(tree, grads, repeat=2, **options)[0], updated(same, tree, grads, repeat=2)[0])


def test_adamw_with_decay_is_that_of_optax():
  tree, grads = params(), params(1)
  decayed = jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in str(path) or "embedding" in str(path), tree)
  same = optax.adamw(0.1, weight_decay=0.3, mask=decayed)
  assert_equal(update(tree, grads, weight_decay=0.3)[0], updated(same, tree, grads)[0])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_shrinks_kernels_and_embeddings_alone_and_by_the_same_part(name):
  tree = params()
  plain, decayed = update(tree, name=name)[0], update(tree, name=name, weight_decay=0.3)[0]
  for path, x in flatten(tree).items():
    want = -0.1 * 0.3 * x if path.endswith(("kernel", "embedding")) else np.zeros_like(x)
    np.testing.assert_allclose(decayed[path] - plain[path], want, atol=2e-6, err_msg=path)


def test_decay_goes_where_its_patterns_say():
  is_decayed = {role.path: role.decayed for role in optim.roles(params(), decay=["up/kernel", "scale"])}
  assert [path for path, decayed in is_decayed.items() if decayed] == [
    "image/stack/layer_0/feed_forward/up/kernel",
    "image/stack/layer_0/mlp_norm/scale",
    "text/stack/layers/feed_forward/up/kernel",
    "text/stack/layers/mlp_norm/scale",
  ]


def test_the_learning_rate_follows_the_schedule():
  tree, grads = params(), params(1)
  transform, rate = optim.optimizer(
    tree, 10, name="sgd", momentum=0.0, learning_rate=0.1, schedule="linear", warmup_steps=2
  )
  state, further = jax.jit(transform.init)(tree), jax.jit(transform.update)
  for step in range(4):
    updates, state = further(grads, state, tree)
    np.testing.assert_allclose(updates["logit_scale"], -rate(step) * grads["logit_scale"], rtol=1e-6)


def test_clipping_is_by_the_norm_of_all_trained_gradients_together():
  tree, grads = params(), params(1)
  frozen = {"freeze": ["text/.*"]}
  norm = float(jax.jit(optax.tree.norm)({name: grads[name] for name in ("image", "head", "logit_scale")}))
  clipped, plain = [update(tree, name="sgd", momentum=0.0, clip_norm=c, **frozen)[0] for c in (norm / 4, None)]
  for path, x in plain.items():
    np.testing.assert_allclose(clipped[path], x / 4, rtol=1e-5)
  loose = update(tree, name="sgd", momentum=0.0, clip_norm=norm * 2, **frozen)[0]
  np.testing.assert_allclose(loose["logit_scale"], plain["logit_scale"], rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_stay_and_have_no_state(name):
  tree = params()
  updates, state = update(tree, name=name, freeze=["image/.*", "logit_scale"], weight_decay=0.3, clip_norm=1.0)
  for path, x in updates.items():
    assert (np.abs(x).max() == 0) == (path.startswith("image") or path == "logit_scale"), path
  assert not [path for path in path_names(state) if "image/" in path or "logit_scale" in path]


def test_a_group_is_optimised_as_it_would_be_alone():
  tree, shared = params(), {"learning_rate": 0.1, "weight_decay": 0.2, "clip_norm": 0.5, "b2": 0.9}
  text = {"params": ["text/.*"], "name": "sgd", "momentum": 0.5, "learning_rate": 0.3}
  head = {"params": [".*/kernel", "head/.*"], "weight_decay": 0.0}
  updates, _ = update(tree, groups=[text, head], **shared)
  rest = [path for path in updates if not path.startswith(("text", "head")) and not path.endswith("/kernel")]
  options = {name: value for name, value in shared.items() if name != "b2"}
  alone = {
    "text": update(tree, **{**options, **{k: v for k, v in text.items() if k != "params"}}, trainable=["text/.*"]),
    "head": update(tree, **{**shared, "weight_decay": 0.0}, trainable=[".*/kernel", "head/.*"], freeze=["text/.*"]),
    "rest": update(tree, **shared, trainable=rest),
  }
  for path, x in updates.items():
    name = "text" if path.startswith("text") else "rest" if path in rest else "head"
    np.testing.assert_array_equal(x, alone[name][0][path], err_msg=path)


def test_frozen_parameters_of_a_group_stay():
  tree = params()
  updates, state = update(tree, groups=[{"params": ["text/.*"], "learning_rate": 0.3}], freeze=["text/.*/kernel"])
  for path, x in updates.items():
    assert (np.abs(x).max() == 0) == (path.startswith("text") and path.endswith("/kernel")), path


@pytest.mark.parametrize(
  "groups, message",
  [
    ({"params": ["text/.*"]}, "optimizer.groups is .* It must be a list"),
    ([{"name": "sgd"}], r"optimizer.groups\[0\].params is None. It must be a list of patterns"),
    ([{"params": "text/.*"}], r"optimizer.groups\[0\].params is 'text/.*'. It must be a list of patterns"),
    ([{"params": ["nothing"]}], r"optimizer.groups\[0\].params: .*nothing"),
    ([{"params": [".*"]}, {"params": ["text/.*"]}], r"groups\[1\] matches only parameters of earlier groups\."),
    ([{"params": ["text/.*"], "freeze": ["bias"]}], r"groups\[0\] has freeze, which applies to all parameters\."),
    ([{"params": ["text/.*"], "learning_rat": 1}], r"optimizer.groups\[0\]: optimizer adamw takes no 'learning_rat'"),
    ([{"params": ["text/.*"], "learning_rate": "1"}], r"optimizer.groups\[0\]: .*learning_rate is"),
  ],
)
def test_groups_that_are_none_are_refused(groups, message):
  with pytest.raises(UserError, match=message):
    update(params(), groups=groups)


def test_trainable_names_the_only_arrays_that_learn():
  trained = lambda **patterns: [role.path for role in optim.roles(params(), **patterns) if role.trained]
  assert trained(trainable=["head/.*"]) == ["head/bias", "head/kernel"]
  assert trained(trainable=["head/.*"], freeze=["bias"]) == ["head/kernel"]
  assert len(trained()) == len(path_names(params()))


def test_multipliers_scale_the_whole_update_and_multiply_each_other():
  tree = params()
  options = {"weight_decay": 0.3, "clip_norm": 1.0}
  plain = update(tree, **options)[0]
  scaled = update(tree, multipliers=[["text/.*", 0.5], ["embedding", 0.1], ["image/.*", 0]], **options)[0]
  for path, x in plain.items():
    factor = 0.05 if "embedding" in path else 0.5 if path.startswith("text") else 0 if path.startswith("image") else 1
    np.testing.assert_allclose(scaled[path], factor * x, rtol=1e-5, atol=1e-9)


def test_a_list_of_factors_goes_to_the_layers_of_a_scanned_stack():
  tree = params()
  plain, scaled = update(tree)[0], update(tree, multipliers=[["layers/.*", [0.5, 1.0]], ["up/kernel", 0.1]])[0]
  path = "text/stack/layers/self_attention/query/kernel"
  np.testing.assert_allclose(scaled[path], plain[path] * np.array([0.5, 1.0]).reshape(2, 1, 1, 1), rtol=1e-5)
  path = "text/stack/layers/feed_forward/up/kernel"
  np.testing.assert_allclose(scaled[path], plain[path] * np.array([0.05, 0.1]).reshape(2, 1, 1), rtol=1e-5)


def test_muon_makes_the_matrix_of_every_kernel_in_a_stack_orthogonal():
  tree = params()
  updates, _ = update(tree, name="muon", learning_rate=1.0, rms=1.0, nesterov=False, beta=0.0, ns_steps=12)
  scanned = {path: x for path, x in updates.items() if "layers" in path and "kernel" in path}
  matrices = {path: x for path, x in updates.items() if "layer_0" in path and "kernel" in path}
  matrices |= {f"{path} {i}": x[i] for path, x in scanned.items() for i in range(2)}
  assert len(matrices) == 9
  for path, x in matrices.items():
    matrix = x.reshape(6, 6) if x.ndim == 3 else x
    values = np.linalg.svd(matrix / np.sqrt(max(matrix.shape)), compute_uv=False)
    assert 0.6 < values.min() and values.max() < 1.3, (path, values)  # Newton-Schulz ends near 1, between these.


def test_muon_treats_a_scanned_stack_as_separate_layers():
  tree, grads = params(), params(1)
  layers = grads["text"]["stack"]["layers"]
  together = update(tree, grads, name="muon")[0]
  for i in range(2):
    one = {"stack": {"layer_0": jax.tree.map(lambda x, i=i: x[i], layers)}}
    for path, x in update(one, one, name="muon")[0].items():
      same = together[path.replace("stack/layer_0", "text/stack/layers")][i]
      np.testing.assert_allclose(same, x, rtol=1e-4, atol=1e-6, err_msg=path)


def test_muon_leaves_the_rest_to_adam():
  tree = params()
  decayed, adam = update(tree, name="muon")[0], update(tree, name="adamw", nesterov=True)[0]
  for path in ("head/kernel", "text/embed/embedding", "logit_scale", "image/stack/layer_0/self_attention/query/bias"):
    np.testing.assert_allclose(decayed[path], adam[path], rtol=1e-6, err_msg=path)
  chosen = update(tree, name="muon", matrices="head/kernel")[0]
  path = "image/stack/layer_0/feed_forward/up/kernel"
  np.testing.assert_allclose(chosen[path], adam[path], rtol=1e-6)
  assert np.abs(chosen["head/kernel"] - adam["head/kernel"]).max() > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_downhill(name):
  """A quadratic bowl around other parameters, in jit."""
  tree, goal = params(), params(1)
  loss = lambda p: sum(((a - b) ** 2).sum() for a, b in zip(jax.tree.leaves(p), jax.tree.leaves(goal)))
  transform, _ = optim.optimizer(tree, 30, name=name, learning_rate=0.03)

  def step(carry, _):
    tree, state = carry
    updates, state = transform.update(jax.grad(loss)(tree), state, tree)
    return (optax.apply_updates(tree, updates), state), loss(tree)

  losses = jax.jit(lambda t: jax.lax.scan(step, (t, transform.init(t)), None, 30)[1])(tree)
  assert losses[-1] < 0.8 * losses[0]


def test_the_average_follows_quickly_first_and_slowly_then():
  average = {"x": jnp.zeros(2)}
  first = optim.update_average(average, {"x": jnp.ones(2)}, 0, 0.999)["x"]
  late = optim.update_average(average, {"x": jnp.ones(2)}, 100_000, 0.999)["x"]
  np.testing.assert_allclose(first, 0.9, rtol=1e-6)
  np.testing.assert_allclose(late, 0.001, rtol=1e-4)


@pytest.mark.parametrize(
  "options, message",
  [
    (
      {"name": "adam"},
      r"There is no optimizer 'adam'. Did you mean 'adamw'\? There are: adamw, lion, adafactor, sgd, muon",
    ),
    ({"momentum": 0.9}, "optimizer adamw takes no 'momentum'. It takes: name, learning_rate"),
    ({"weight_dekay": 0.1}, r"optimizer adamw takes no 'weight_dekay'. Did you mean 'weight_decay'\?"),
    ({"b2": "high"}, r"optimizer adamw.b2 is 'high' \(str\). It must be a number"),
    ({"learning_rate": "fast"}, r"optimizer.learning_rate is 'fast' \(str\). It must be a number"),
    ({"warmup_steps": 1.5}, "optimizer.warmup_steps is 1.5"),
    ({"learning_rate": -1.0}, "optimizer.learning_rate is -1.0. It must be 0 or more"),
    ({"weight_decay": float("inf")}, "optimizer.weight_decay is inf. It must be 0 or more, and finite"),
    ({"weight_decay": -0.1}, "optimizer.weight_decay is -0.1. It must be 0 or more"),
    ({"clip_norm": 0.0}, "optimizer.clip_norm is 0.0. It must be above 0, or None for no clipping"),
    (
      {"freeze": ["image/stak/.*"]},
      "optimizer.freeze: 'image/stak/.*' matches no parameter. The nearest: image/stack/layer_0",
    ),
    ({"decay": ["kernels"], "weight_decay": 0.1}, ".decay: 'kernels' matches no parameter. The nearest: .*kernel"),
    ({"trainable": ["haed/.*"]}, "optimizer.trainable: 'haed/.*' matches no parameter. The nearest: head/"),
    (
      {"multipliers": [["embed", 0.1]]},
      "optimizer.multipliers: 'embed' matches no parameter. The nearest: text/embed/embedding",
    ),
    ({"multipliers": [["(embed", 0.1]]}, r"optimizer.multipliers: '\(embed' is not a regular expression"),
    ({"multipliers": ["embed/.*"]}, r"optimizer.multipliers holds 'embed/.\*'. It must hold pairs"),
    ({"multipliers": [["head/.*", -1]]}, r"the factor of 'head/.\*' is -1. It must be a number, 0 or more"),
    (
      {"multipliers": [["layers/.*", [1, 1, 1]]]},
      r"gives text/stack/layers/feed_forward/up/kernel \(2, 6, 10\) a list of 3 factors. A list needs one factor",
    ),
    ({"freeze": "image/.*"}, r"optimizer.freeze is the str 'image/.\*'. It must be a list of patterns"),
    ({"freeze": [3]}, "optimizer.freeze: 3 is not a pattern"),
    ({"freeze": [".*"]}, "leave no parameter to train. Remove a pattern"),
  ],
)
def test_mistakes_are_told(options, message):
  with pytest.raises(UserError, match=message):
    optim.optimizer(params(), 10, **{"learning_rate": 0.1, **options})
