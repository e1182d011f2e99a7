"""The hierarchical encoder: two encoders, one over chunks of tokens, one over the vectors of chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from tests.models.test_families import close
from zoo.errors import UserError
from zoo.layers.sequence import SequenceInfo

TOWER = dict(vocab_size=23, dim=6, depth=1, num_heads=3)
TOP = dict(max_chunks=5, depth=1, num_heads=5, dim=10)
ENCODERS = {
  "sentence_bert": (dict(max_length=11, **TOWER), "mean"),
  "bert": (dict(max_length=11, head=None, **TOWER), "pooled"),
  "gpt": (dict(max_length=11, **TOWER), "last"),
  "t5": (TOWER, "mean"),
}
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(2, 23, (2, 2, 7)).astype(np.int32)
# The documents have 2 chunks and 1, of 7 and 4, and of 5 tokens.
VALID = np.arange(7) < np.array([[7, 4], [5, 0]])[:, :, None]


def built(family="sentence_bert", head="classify", **sizes):
  encoder, summary = ENCODERS[family]
  classes = {} if head is None else {"num_classes": 2}
  return zoo.build("hierarchical", encoder={"family": family, **encoder}, summary=summary, head=head, **classes, **TOP)


def by_hand(model, params, tokens, valid):
  """Logits of one document: its chunks one by one without their padding, then their vectors."""
  vectors = []
  for chunk, real in zip(tokens, valid):
    if not real.any():
      continue
    call = {"method": "encode"} if hasattr(model.encoder, "encode") else {}
    out = model.encoder.apply({"params": params["encoder"]}, chunk[real][None], **call)
    if model.summary == "pooled":
      vectors.append(out["pooled"][0])
      continue
    states = (out["hidden"] if isinstance(out, dict) else out)[0]
    vectors.append(states[-1] if model.summary == "last" else states.mean(0))
  x = jnp.stack(vectors)[None] @ params["project"]["kernel"] + params["project"]["bias"][None, None]
  x = model.document_encoder.apply({"params": params["document_encoder"]}, x, info=SequenceInfo())
  return x.mean(1)[0] @ params["classify"]["kernel"] + params["classify"]["bias"]


def same_gradients(grads, expected, tolerance):
  largest = max(float(abs(leaf).max()) for leaf in jax.tree.leaves(expected))
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize("family", ENCODERS)
def test_it_is_the_two_encoders_run_by_hand(family):
  model = built(family)
  params = filled(model, *model.example())
  weights = RNG.standard_normal((2, 2)).astype(np.float32)

  def in_one(params):
    logits = model.apply({"params": params}, TOKENS, valid=VALID)["logits"]
    return (weights * logits).sum(), logits

  def one_by_one(params):
    logits = jnp.stack([by_hand(model, params, TOKENS[row], VALID[row]) for row in range(2)])
    return (weights * logits).sum(), logits

  both = jax.jit(lambda params: [jax.value_and_grad(f, has_aux=True)(params) for f in (in_one, one_by_one)])
  ((_, logits), grads), ((_, expected), expected_grads) = both(params)
  close(logits, expected, 1e-5)
  same_gradients(grads, expected_grads, 1e-4)


def test_padding_and_empty_chunks_move_nothing():
  model = built(head="classify_chunks")
  params = filled(model, *model.example())
  weights = RNG.standard_normal((2, 5, 2)).astype(np.float32)
  wide = np.zeros((2, 5, 9), bool)
  wide[:, :2, :7] = VALID

  def padded(fill):
    tokens = np.full(wide.shape, fill, np.int32)
    tokens[wide] = TOKENS[VALID]
    return tokens

  def loss(params, tokens, valid):
    logits = model.apply({"params": params}, tokens, valid=valid)["logits"]
    real = valid.any(-1)[:, :, None]
    return (jnp.where(real, weights[:, : logits.shape[1]] * logits, 0)).sum(), jnp.where(real, logits, 0)

  both = jax.jit(
    lambda params: [
      jax.value_and_grad(loss, has_aux=True)(params, tokens, valid)
      for tokens, valid in ((TOKENS, VALID), (padded(3), wide), (padded(19), wide))
    ]
  )
  ((_, logits), grads), ((_, other), other_grads), ((_, again), again_grads) = both(params)
  np.testing.assert_allclose(other[:, :2], logits, rtol=0, atol=1e-5 * float(abs(logits).max()))
  same_gradients(other_grads, grads, 1e-4)
  np.testing.assert_array_equal(other, again)
  same_gradients(other_grads, again_grads, 0)
  assert abs(logits[:, 0] - logits[:, 1]).max() > 1e-3


def test_order_and_number_of_chunks_count():
  model = built()
  params = {"params": filled(model, *model.example())}
  logits = jax.jit(lambda tokens: model.apply(params, tokens)["logits"])
  assert abs(logits(TOKENS) - logits(TOKENS[:, ::-1])).max() > 1e-3


def test_the_encoder_is_computed_as_the_whole_is_unless_it_says_otherwise():
  sizes = dict(family="sentence_bert", **ENCODERS["sentence_bert"][0])
  model = zoo.build("hierarchical", encoder=sizes, **TOP, dtype="bfloat16", dropout=0.25)
  assert model.encoder.dropout == 0.25 and model.encoder.embed.dtype == jnp.bfloat16
  other = zoo.build(
    "hierarchical", encoder=sizes | {"dropout": 0.0, "dtype": None}, **TOP, dtype="bfloat16", dropout=0.25
  )
  assert other.encoder.dropout == 0 and other.encoder.embed.dtype is None
  assert other.document_encoder.dropout == 0.25


def test_it_is_saved_and_loaded(tmp_path):
  model = built("gpt")
  params = filled(model, *model.example())
  zoo.save(tmp_path / "m", model, params)
  loaded, read = zoo.load(tmp_path / "m")
  assert loaded == model and loaded.encoder.spec["family"] == "gpt"
  jax.tree.map(np.testing.assert_array_equal, read, params)


SENTENCE_BERT = {"family": "sentence_bert", "max_length": 11, **TOWER}


@pytest.mark.parametrize(
  "sizes, message",
  [
    ({"encoder": 3}, "hierarchical.encoder is 3. It must be a mapping with the 'family' of a model"),
    ({"encoder": {"family": "brt"}}, "hierarchical: its encoder, zoo/models has no 'brt'. Did you mean 'bert'"),
    ({"encoder": {"family": "hierarchical"}}, "hierarchical.encoder is another hierarchical"),
    ({"encoder": {"family": "vit", "variant": "B/16"}}, "encoder is a vit, which does not make states of the tokens"),
    (
      {"encoder": SENTENCE_BERT | {"num_classes": 2}},
      "encoder is a sentence_bert with a head, classify, which nothing",
    ),
    ({"encoder": SENTENCE_BERT | {"depth": 0}}, "hierarchical: its encoder, sentence_bert: depth is 0. It must be at"),
    ({"max_chunks": 0}, "hierarchical: max_chunks is 0. It must be at least 1"),
    ({"summary": "max"}, "hierarchical: summary is 'max'. It may be: mean, first, last, pooled"),
    ({"num_classes": 3}, "head is None and num_classes 3. Give num_classes with a classifying head"),
    ({"head": "mlm"}, "head is 'mlm'. It may be: classify, classify_chunks, None"),
  ],
)
def test_what_cannot_be_built_is_refused_in_one_line(sizes, message):
  with pytest.raises(UserError, match=message) as error:
    zoo.build("hierarchical", **{"encoder": SENTENCE_BERT, **TOP, **sizes})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(2, 7), (2, 6, 7)])
def test_texts_and_documents_of_too_many_chunks_are_refused(shape):
  model = built()
  with pytest.raises(ValueError, match=r"the model needs \[batch, chunks, length\], at most 5 chunks"):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape, jnp.int32))
