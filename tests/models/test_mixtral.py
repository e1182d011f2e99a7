import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.layers.experts import Mixture, all_experts, chosen_experts
from zoo.layers.mlp import GatedMLP
from zoo.layers.stack import stack_layers
from zoo.objectives.causal_lm import causal_lm
from zoo.objectives.routing import imbalance, routes
from zoo.optim.optimizers import matrix_of

SIZES = dict(vocab_size=23, max_length=20, dim=6, depth=3, num_heads=3, mlp_dim=5, num_experts=4, top_k=2)
TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 23)
X = jax.random.normal(jax.random.key(1), (2, 5, 6))


def model_and_variables(**sizes):
  model = zoo.build("mixtral", **SIZES, **sizes)
  return model, {"params": filled(model, *model.example())}


@pytest.mark.parametrize("normalize", [True, False])
def test_a_token_gets_the_weighted_sum_of_its_experts(normalize):
  mixture = Mixture(4, 2, 5, normalize=normalize)
  params = filled(mixture, X)
  out = mixture.apply({"params": params}, X)
  for row, t in np.ndindex(2, 5):
    chance = jax.nn.softmax(X[row, t] @ params["router"]["kernel"])
    best = np.argsort(-chance)[:2]
    experts = [jax.tree.map(lambda a, e=e: a[e], params["experts"]) for e in best]
    each = [GatedMLP(5).apply({"params": expert}, X[row, t]) for expert in experts]
    want = sum(chance[e] * y for e, y in zip(best, each)) / (chance[best].sum() if normalize else 1)
    np.testing.assert_allclose(out[row, t], want, rtol=1e-4, atol=1e-5)


def test_sorted_tokens_give_the_same():
  def outcome(dispatch):
    mixture = Mixture(4, 2, 5, dispatch=dispatch)
    loss = lambda params, x: (jnp.sin(jnp.arange(60.0)).reshape(2, 5, 6) * mixture.apply({"params": params}, x)).sum()
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(filled(mixture, X), X)

  for a, b in zip(*(jax.tree.leaves(outcome(dispatch)) for dispatch in (all_experts, chosen_experts))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_generated_text_is_that_of_the_full_pass_however_the_prompts_are_padded():
  model, params = model_and_variables(window=3, pattern=["dense", "sparse"], dense_dim=9)
  valid = jnp.array([[True] * 5, [False, False, True, True, True]])
  out = zoo.generate(model, params["params"], TOKENS[:, :5], valid=valid, max_new_tokens=6)
  apply = jax.jit(model.apply)
  for row, start in ((0, 0), (1, 2)):
    full = apply(params, jnp.pad(out[row : row + 1, start:], ((0, 0), (0, start))))
    np.testing.assert_array_equal(out[row, 5:], full[0, 4 - start : 10 - start].argmax(-1))


def test_padding_takes_no_part_in_evening_out_and_layers_may_be_scanned():
  model, params = model_and_variables()
  scanned, stacked = zoo.build("mixtral", **SIZES, scan=True), {"params": stack_layers(params["params"])}
  valid = jnp.array([[True] * 4 + [False] * 3, [True] * 7])
  kept_tokens = []
  for one, variables, tokens in (
    (model, params, TOKENS),
    (scanned, stacked, TOKENS),
    (model, params, TOKENS.at[0, 4:].set(0)),
  ):

    @jax.jit
    def run(variables, tokens, one=one):
      _, state = one.apply(variables, tokens, valid=valid, mutable=["router"])
      return imbalance(routes(state["router"], valid))

    kept_tokens.append(run(variables, tokens))
  np.testing.assert_allclose(kept_tokens, kept_tokens[0], rtol=1e-5)


def test_even_use_is_the_least_imbalance():
  even = {"chosen": jnp.full((2, 4), 3.0), "probability": jnp.full((2, 4), 1.5), "routed": jnp.full(2, 6.0)}
  np.testing.assert_allclose(imbalance(even), 2)
  one = jnp.array([[6.0, 6.0, 0, 0]] * 2)
  np.testing.assert_allclose(imbalance({"chosen": one, "probability": one / 2, "routed": jnp.full(2, 6.0)}), 4)


def test_a_language_model_may_learn_to_use_its_experts_evenly():
  model, params = model_and_variables()
  batch = {"tokens": TOKENS, "weight": jnp.array([1.0, 0.0])}
  plain, _ = jax.jit(causal_lm(model).loss)(params["params"], batch)
  loss, metrics = jax.jit(causal_lm(model, balance=0.5).loss)(params["params"], batch)
  _, state = jax.jit(lambda params: model.apply(params, TOKENS[:1, :-1], mutable=["router"]))(params)
  np.testing.assert_allclose(metrics["imbalance"], imbalance(routes(state["router"])), rtol=1e-5)
  np.testing.assert_allclose(loss, plain + 0.5 * metrics["imbalance"], rtol=1e-5)
  dense = zoo.build("gpt", vocab_size=23, max_length=7, dim=6, depth=1, num_heads=3)
  with pytest.raises(UserError, match="needs a mixture of experts, which this model is not. Leave balance out"):
    causal_lm(dense, balance=0.5).loss(filled(dense, *dense.example()), batch)


def test_noise_on_the_way_to_experts_acts_in_training_only():
  plain, noisy = Mixture(4, 2, 5), Mixture(4, 2, 5, jitter=0.3)
  params = {"params": filled(plain, X)}
  np.testing.assert_array_equal(noisy.apply(params, X), plain.apply(params, X))
  assert abs(noisy.apply(params, X, train=True, rngs={"dropout": jax.random.key(0)}) - plain.apply(params, X)).max() > 0


def test_every_expert_is_a_matrix_to_an_optimiser_of_matrices():
  for name in ("stack/layer_0/feed_forward/experts/up/kernel", "stack/layers/feed_forward/experts/up/kernel"):
    ndim = 3 + ("layers" in name)
    assert matrix_of(name, ndim).reduction_axis == (ndim - 2,) and matrix_of(name, ndim).output_axis == (ndim - 1,)


def test_impossible_mixtures_are_refused():
  for message, sizes in {
    "top_k 5 exceeds num_experts 4": dict(top_k=5),
    "pattern is \\['wide'\\]. It must be a list of 'sparse' and 'dense'.": dict(pattern=["wide"]),
    "pattern has dense layers, but dense_dim is None": dict(pattern=["dense"]),
    "dispatch is 'some'. It may be: all, chosen.": dict(dispatch="some"),
  }.items():
    with pytest.raises(UserError, match=f"mixtral: {message}"):
      zoo.build("mixtral", **{**SIZES, **sizes})
