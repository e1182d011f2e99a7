"""VisualBERT: what is masked or named among regions, and what a wrong shape says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.config.registry import lookup
from zoo.errors import UserError

SIZES = dict(vocab_size=23, max_length=11, region_dim=7, dim=6, depth=1, num_heads=3)


@pytest.fixture(scope="module")
def tiny():
  model = zoo.build("visual_bert", **SIZES, head=None)
  params = {"params": filled(model, *model.example())}
  rng = np.random.default_rng(0)
  tokens, regions = rng.integers(0, 23, (1, 5)), rng.normal(size=(1, 4, 7)).astype(np.float32)
  return model, jax.jit(lambda regions, **options: model.apply(params, tokens, regions, **options)), regions


def test_padding_among_regions_changes_nothing(tiny):
  _, apply, regions = tiny
  valid = jnp.array([[True, False, True, True]])
  out, other = (apply(r, regions_valid=valid) for r in (regions, regions + 3 * ~valid[..., None]))
  np.testing.assert_allclose(out["hidden"], other["hidden"], atol=1e-6)
  left_out = apply(regions[:, [0, 2, 3]])
  np.testing.assert_allclose(out["hidden"], left_out["hidden"], atol=1e-6)


def test_regions_have_no_order_until_words_name_them(tiny):
  _, apply, regions = tiny
  order = [2, 0, 3, 1]
  np.testing.assert_allclose(apply(regions)["hidden"], apply(regions[:, order])["hidden"], atol=1e-6)
  names = jnp.array([[[0], [-1], [3], [1]]])
  assert (
    abs(apply(regions, alignment=names)["hidden"] - apply(regions[:, order], alignment=names)["hidden"]).max() > 1e-3
  )


def test_tables_of_regions_begin_as_those_of_words():
  params = zoo.build("visual_bert", **SIZES).init(jax.random.key(0), *zoo.build("visual_bert", **SIZES).example())[
    "params"
  ]
  np.testing.assert_array_equal(params["regions"]["segments"], params["segments"]["embedding"])
  np.testing.assert_array_equal(params["regions"]["positions"], params["positions"]["embedding"])


@pytest.mark.parametrize(
  "options, message",
  [
    (
      dict(regions=np.zeros((1, 4, 8))),
      r"regions is of shape \[1, 4, 8\]. With tokens \[1, 5\] it must be \[1, 'regions', 7\]",
    ),
    (dict(regions=np.zeros((2, 4, 7))), r"regions is of shape \[2, 4, 7\]"),
    (dict(segment_ids=np.zeros((1, 5), int)), "cannot be packed"),
    (dict(phrases=np.zeros((1, 2), int)), 'Build it with head="align", or leave out phrases'),
  ],
)
def test_what_does_not_fit_is_named(tiny, options, message):
  model, _, regions = tiny
  options = {"regions": regions, **options}
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda: model.init(jax.random.key(0), np.zeros((1, 5), int), options.pop("regions"), **options))


@pytest.mark.parametrize("head, objective", [("pretraining", "bert_pretraining"), ("classify_answers", "classify")])
def test_objectives_pass_the_regions_on(head, objective, tiny):
  classes = 5 if head == "classify_answers" else None
  model = zoo.build("visual_bert", **SIZES, head=head, num_classes=classes)
  loss = lookup("objectives", objective)(model, **({"mask_token": 3} if classes is None else {})).loss
  params = filled(model, *model.example())
  batch = {"tokens": np.arange(10).reshape(2, 5), "is_random": np.array([0, 1]), "label": np.array([2, 4])}
  with pytest.raises(ValueError, match="Pass regions, or add them to the batch"):
    jax.eval_shape(lambda: loss(params, batch))
  regions = np.random.default_rng(0).normal(size=(2, 4, 7)).astype(np.float32)
  valid = np.array([[True, True, True, False]] * 2)
  losses = jax.jit(lambda regions: loss(params, {**batch, "regions": regions, "regions_valid": valid})[0])
  assert abs(losses(regions) - losses(-regions)) > 1e-4
  np.testing.assert_allclose(losses(regions), losses(np.where(valid[..., None], regions, 3.0)), rtol=1e-6)


def test_one_segment_is_too_few():
  with pytest.raises(UserError, match="num_segments is 1. It must be at least 2"):
    zoo.build("visual_bert", **SIZES, num_segments=1)
