"""Learning rates that fall from layer to layer: the factor of every parameter of every family."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.models.test_families import TINY
from zoo import optim
from zoo.errors import UserError
from zoo.layers.returned import intercept_calls
from zoo.optim.layer_decay import layer_multipliers
from zoo.tree import flatten

# What no layer of a stack is, and yet read by one: embeddings, what is added to them, and norms before the first layer.
BOTTOM = r"(.*/)?(embed|segments|positions|patches|class_token|bias)/(embedding|kernel|bias)|registers|stem/.*|unknown"
BOTTOM += r"|embed/(embedding|projection)_\d"
FIRST_NORMS = {
  name: "norm/.*" for name in ("bert", "roberta", "bigbird", "longformer", "mpnet", "distilbert", "sentence_bert")
}
FIRST_NORMS |= {name: ".*/pre_norm/.*" for name in ("clip", "clip_vision")}
FIRST_NORMS |= {
  "hierarchical": "encoder/norm/.*",
  "visual_bert": "(norm|regions)/.*",
  "modernbert": "first_norm/.*",
  "bart": ".*/first_norm/.*",
  "led": ".*/first_norm/.*",
}


def built(family, **sizes):
  """-> the shapes of a tiny model's parameters, and the order of its calls."""
  calls: dict[str, None] = {}
  model = zoo.build(family, **{**TINY.get(family, {}), **sizes})
  with intercept_calls(calls.setdefault):
    shapes = jax.eval_shape(lambda rng: model.init(rng, *model.example()), jax.random.key(0))
  return shapes["params"], list(calls)


def exponents(params, calls):
  """path -> how many times the decay is in its factor; of a scan one for every layer."""
  exponent_of = {}
  for role in optim.roles(params, multipliers=layer_multipliers(params, 0.5, calls)):
    exponent = -np.log2(np.array(role.factor))
    exponent_of[role.path] = exponent.tolist() if exponent.ndim else int(exponent)
  return exponent_of


def wanted(family, path):
  depth = {"modernbert": 5, "gemma": 3}.get(family, 2)
  layer = re.match(r"(.*/|)(first|stack)/layer_(\d+)/", path)
  if layer:
    return depth - int(layer[3]) - (family == "modernbert" and layer[2] == "stack")
  first_norm = FIRST_NORMS.get(family)
  is_bottom = re.fullmatch(BOTTOM, path) or first_norm and re.fullmatch(first_norm, path)
  return depth + 1 if is_bottom else 0


@pytest.mark.parametrize("family", TINY)
def test_embeddings_lie_at_the_bottom_and_heads_on_top(family):
  params, calls = built(family)
  assert exponents(params, calls) == {path: wanted(family, path) for path in flatten(params)}


@pytest.mark.parametrize("family", ["gpt", "t5", "gemma"])
def test_layers_of_a_scan_have_the_factors_of_a_loop(family):
  depth = {"gpt": 3, "t5": 3, "gemma": 5}[family]  # Of two kinds of layers one is left over.
  loop = exponents(*built(family, depth=depth, scan=False))
  for path, exponent in exponents(*built(family, depth=depth, scan=True)).items():
    if "/layers/" not in path:
      assert exponent == loop[path], path
      continue
    before, after = path.split("/layers/")
    kind = re.match(r"layer_(\d+)/(.*)", after)
    first, step, after = (int(kind[1]), 2, kind[2]) if kind else (0, 1, after)
    numbers = range(first, first + step * len(exponent), step)
    assert exponent == [loop[f"{before}/layer_{number}/{after}"] for number in numbers], path


def test_the_update_is_scaled_beside_other_multipliers_and_within_groups():
  params, calls = built("bert", head="classify", num_classes=5)
  ones = jax.tree.map(lambda x: np.ones(x.shape, np.float32), params)
  groups = [{"params": ["classify/.*"], "learning_rate": 1.0}, {"params": ["stack/layer_0/.*"], "name": "sgd"}]
  transform, _ = optim.optimizer(
    params,
    10,
    **dict(name="sgd", momentum=0.0, learning_rate=0.5, schedule="constant", multipliers=[["bias", 3.0]]),
    **dict(layer_decay=0.5, calls=calls, groups=groups),
  )
  updates, _ = jax.jit(lambda tree: transform.update(tree, transform.init(tree), tree))(ones)
  for path, x in flatten(updates).items():
    rate = 1.0 if path.startswith("classify") else 0.5
    factor = 0.5 ** exponents(params, calls)[path] * (3.0 if path.endswith("/bias") else 1.0)
    np.testing.assert_allclose(x, jnp.full(x.shape, -rate * factor), rtol=1e-6, err_msg=path)


@pytest.mark.parametrize(
  "decay, message",
  [
    (0.0, "optimizer.layer_decay is 0.0. It must be above 0 and at most 1"),
    (1.5, "optimizer.layer_decay is 1.5. It must be above 0 and at most 1"),
    (True, "layer_decay is True"),
    ("0.9", "layer_decay is '0.9'"),
  ],
)
def test_other_factors_are_refused(decay, message):
  params, calls = built("vit")
  with pytest.raises(UserError, match=message):
    optim.optimizer(params, 10, learning_rate=0.1, layer_decay=decay, calls=calls)


def test_a_model_without_layers_is_refused():
  with pytest.raises(UserError, match="this one has none. Leave it out"):
    optim.optimizer({"kernel": np.zeros(3)}, 10, learning_rate=0.1, layer_decay=0.9)
