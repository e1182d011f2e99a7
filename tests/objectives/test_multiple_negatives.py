"""Losses of sentence encoders: those of sentence-transformers on the same vectors, and exact in parts and on a mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import numbers
from zoo import sharding
from zoo.errors import UserError
from zoo.objectives.cosine_similarity import cosine_similarity
from zoo.objectives.multiple_negatives import multiple_negatives
from zoo.objectives.objective import value_and_grad
from zoo.tree import flatten

ENCODER = dict(vocab_size=23, max_length=11, dim=6, depth=1, num_heads=3, head=None)
ROWS, TEXTS, DIM = 5, 4, 7


def outputs(seed=0, rows=ROWS, texts=TEXTS, **more):
  """What `forward` gives, without a model."""
  vectors = np.random.default_rng(seed).normal(size=(rows, texts, DIM)).astype(np.float32)
  return {"vectors": jnp.array(vectors), "weight": jnp.ones(rows), **more}


def loss_of(outputs_of, objective=multiple_negatives, **options):
  loss, metrics = jax.jit(objective(None, **options).reduce)(outputs_of)
  return float(loss), metrics


def by_the_paper(vectors, scale=20.0, symmetric=False):
  """Section 4.4 of https://arxiv.org/abs/1705.00652 with cosines, in NumPy."""
  x = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
  logits = scale * x[:, 0] @ x[:, 1:].swapaxes(0, 1).reshape(-1, x.shape[-1]).T
  nll = lambda logits: np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
  return (nll(logits) + nll(logits[:, : len(x)].T)) / 2 if symmetric else nll(logits)


@pytest.mark.parametrize("symmetric", [False, True])
def test_is_the_formula_of_the_paper(symmetric):
  embedded = outputs()
  want = by_the_paper(np.asarray(embedded["vectors"], np.float64), 3.0, symmetric)
  assert loss_of(embedded, scale=3.0, symmetric=symmetric)[0] == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("case", ["plain", "symmetric", "matryoshka", "scores"])
def test_losses_and_gradients_are_those_of_sentence_transformers(case):
  torch = pytest.importorskip("torch")
  pytest.importorskip("sentence_transformers", reason="pip install 'flax-zoo[parity]'")
  from sentence_transformers.sentence_transformer import losses

  class Given(torch.nn.Module):
    """An encoder whose vectors are its inputs."""

    def forward(self, features):
      return dict(features)

    def get_embedding_dimension(self):
      return DIM

  options = {"symmetric": dict(symmetric=True), "matryoshka": dict(dims=[7, 5, 2], dim_weights=[1.0, 0.5, 0.3])}
  embedded = outputs(texts=2 if case == "scores" else TEXTS)
  score = np.array([0.1, 0.9, -0.3, 0.5, 1.0], np.float32)
  embedded |= {"score": jnp.array(score)} if case == "scores" else {}
  objective = cosine_similarity(None) if case == "scores" else multiple_negatives(None, **options.get(case, {}))
  loss, gradient = jax.jit(jax.value_and_grad(lambda vectors: objective.reduce({**embedded, "vectors": vectors})[0]))(
    embedded["vectors"]
  )

  columns = [torch.tensor(np.array(x), requires_grad=True) for x in np.moveaxis(np.asarray(embedded["vectors"]), 1, 0)]
  constant = Given()
  plain = losses.MultipleNegativesRankingLoss(constant)
  both_ways = dict(directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction")
  theirs = {
    "plain": plain,
    "symmetric": losses.MultipleNegativesRankingLoss(constant, **both_ways),
    "matryoshka": losses.MatryoshkaLoss(constant, plain, [7, 5, 2], [1.0, 0.5, 0.3]),
    "scores": losses.CosineSimilarityLoss(constant),
  }[case]
  want = theirs([{"sentence_embedding": column} for column in columns], torch.tensor(score))
  want.backward()
  assert float(loss) == pytest.approx(want.item(), rel=2e-6)
  np.testing.assert_allclose(gradient, np.stack([column.grad.numpy() for column in columns], 1), atol=2e-6)


def test_texts_that_are_right_answers_are_no_candidates():
  # Row 1 has the anchor of row 0, row 2 its positive, and a negative of row 3 is the anchor of row 0.
  ids = np.arange(ROWS * TEXTS).reshape(ROWS, TEXTS)
  ids[1, 0], ids[2, 1], ids[3, 2] = ids[0, 0], ids[0, 1], ids[0, 0]
  embedded = outputs(text_ids=jnp.array(ids))
  changed = np.array(embedded["vectors"])
  x = np.array(embedded["vectors"])
  for row, text in ((1, 1), (2, 1), (3, 2)):
    changed[row, text] += 100 * x[0, 0]  # Were it a candidate, the anchor of row 0 would pick it.

  def first_row(vectors):
    weight = jnp.array([1.0] + [1e-30] * (ROWS - 1))
    return loss_of({**embedded, "vectors": jnp.array(vectors), "weight": weight})[0]

  assert first_row(changed) == pytest.approx(first_row(x), rel=1e-6)


def test_negatives_that_are_absent_and_rows_of_weight_0_change_nothing():
  present = np.ones((ROWS, TEXTS), bool)
  present[2, 3] = False
  embedded = outputs(present=jnp.array(present), weight=jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]))
  changed = np.array(embedded["vectors"])
  changed[2, 3], changed[4] = changed[0, 0], changed[:1, 0]
  for symmetric in (False, True):
    loss = functools.partial(loss_of, symmetric=symmetric)
    assert loss({**embedded, "vectors": jnp.array(changed)})[0] == pytest.approx(loss(embedded)[0], rel=1e-6)


def test_accuracy_counts_anchors_that_pick_their_positive():
  vectors = np.zeros((3, 3, DIM), np.float32)
  vectors[:, 0] = vectors[:, 1] = np.eye(3, DIM)
  vectors[:, 2] = np.eye(3, DIM, 3)
  vectors[2, 1] = -vectors[2, 0]
  assert float(loss_of({"vectors": jnp.array(vectors), "weight": jnp.ones(3)})[1]["accuracy"]) == pytest.approx(2 / 3)


def batch_of(rows=8, seed=0):
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, 6, (rows, 3, 1))
  present = rng.random((rows, 3)) < 0.7
  present[:, :2] = True
  return {
    "tokens": jnp.array(rng.integers(0, 23, (rows, 3, 5))),
    "valid": jnp.array(np.arange(5) < lengths),
    "present": jnp.array(present),
    "text_ids": jnp.array(rng.integers(0, 9, (rows, 3))),
    "weight": jnp.array([1.0] * (rows - 1) + [0.0]),
    "score": jnp.array(rng.uniform(-1, 1, rows).astype(np.float32)),
  }


def test_parts_of_a_batch_and_devices_change_nothing():
  model = zoo.build("bert", **ENCODER)
  objective = multiple_negatives(model, pooling=["mean", "cls"], symmetric=True, dims=[12, 5])
  batch = batch_of()
  params = numbers(jax.eval_shape(objective.init, jax.random.key(0), batch))
  (loss, _), whole = jax.jit(value_and_grad(objective))(params, batch)
  mesh = sharding.make_mesh({"data": 4}, jax.devices()[:4])
  spread = jax.device_put(batch, sharding.batch_sharding(mesh))
  for accumulate, rows in ((2, batch), (1, spread), (2, spread)):
    (other, _), grads = jax.jit(value_and_grad(objective, accumulate))(params, rows)
    assert float(other) == pytest.approx(float(loss), rel=1e-6)
    for path, gradient in flatten(grads).items():
      np.testing.assert_allclose(gradient, flatten(whole)[path], rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(pooling=["meen"]), "pooling is .'meen'.. Did you mean .?mean"),
    (dict(pooling=[]), "It may have: cls"),
    (dict(scale=0.0), "scale is 0.0. It must be above 0"),
    (dict(dims=[4, 4]), "dims is .4, 4.. It must be different ints"),
    (dict(dims=[0]), "dims is .0.. It must be different ints"),
    (dict(dims=[4], dim_weights=[1.0, 2.0]), "It must be 1 numbers of at least 0"),
    (dict(dim_weights=[1.0]), "but there are no dims"),
  ],
)
def test_options_that_mean_nothing_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    multiple_negatives(None, **options).reduce(outputs())


def test_more_entries_than_vectors_have_are_refused():
  with pytest.raises(UserError, match="vectors have 7 entries"):
    multiple_negatives(None, dims=[8]).reduce(outputs())


def test_rows_of_one_text_are_refused():
  model = zoo.build("bert", **ENCODER)
  with pytest.raises(UserError, match="needs several texts per example, not .2, 5."):
    multiple_negatives(model).loss({}, {"tokens": jnp.ones((2, 5), int)})
