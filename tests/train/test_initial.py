"""A part of a model that starts from another model."""

import jax
import numpy as np
import pytest

import zoo
from tests.hub_folder import published_bert
from zoo.errors import UserError
from zoo.train.initial import load_into

ENCODER = dict(family="bert", vocab_size=23, max_length=11, dim=6, depth=2, num_heads=3, mlp_dim=7)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bert")
  return folder, published_bert(folder)[1]


def model_and_state(**sizes):
  encoder = ENCODER | {"head": None} | sizes
  model = zoo.build("hierarchical", encoder=encoder, max_chunks=3, depth=1, num_heads=3, head="classify", num_classes=2)
  return model, {"params": model.init(jax.random.key(0), *model.example())["params"]}


@pytest.mark.parametrize("scan", [False, True])
def test_the_encoder_of_documents_starts_from_a_published_folder(bert, scan):
  folder, params = bert
  model, state = model_and_state(scan=scan)
  notes = []
  loaded = load_into({"source": str(folder), "into": "encoder"}, state, model, note=notes.append)["params"]
  from zoo.build import by_layer

  read, fresh = by_layer(loaded), by_layer(state["params"])
  for name in ("embed", "positions", "segments", "norm", "stack"):
    jax.tree.map(np.testing.assert_array_equal, read["encoder"][name], params[name])
  for name in ("document_encoder", "classify"):
    jax.tree.map(np.testing.assert_array_equal, read[name], fresh[name])
  np.testing.assert_array_equal(read["encoder"]["pooler"]["kernel"], fresh["encoder"]["pooler"]["kernel"])
  assert any("mlm" in note and "are not used" in note for note in notes)


def test_what_may_start_anew_is_named_from_the_whole_model(bert):
  folder, params = bert
  model, state = model_and_state()
  init = {"source": str(folder), "into": "encoder", "fresh": ["encoder/stack/layer_1/.*"]}
  loaded = load_into(init, state, model)["params"]["encoder"]
  jax.tree.map(np.testing.assert_array_equal, loaded["stack"]["layer_0"], params["stack"]["layer_0"])
  jax.tree.map(
    np.testing.assert_array_equal, loaded["stack"]["layer_1"], state["params"]["encoder"]["stack"]["layer_1"]
  )


def test_a_part_that_does_not_fit_is_refused(bert):
  folder, _ = bert
  for sizes, init, message in (
    ({}, {"into": "encodr"}, "init.into is 'encodr', which is no module of the model to train. It has: classify, doc"),
    ({"mlp_dim": 8}, {"into": "encoder"}, "holds another model than the one to train: "),
    ({"activation": "relu"}, {"into": "encoder"}, "was trained with activation 'gelu', the model to train has 'relu'"),
    ({}, {"into": 3}, "It must be a folder, or have a 'source' and may have"),
    ({}, {}, "holds another model than the one to train: they have no part in common"),
  ):
    model, state = model_and_state(**sizes)
    with pytest.raises(UserError, match=message):
      load_into({"source": str(folder), **init}, state, model)


def test_parameters_that_are_not_finite_are_refused(bert, tmp_path):
  folder, params = bert
  zoo.save(tmp_path, zoo.load(folder)[0], jax.tree.map(lambda x: x * np.nan, params))
  model, state = model_and_state()
  with pytest.warns(UserWarning, match="not finite"), pytest.raises(UserError, match="not finite .* Take another"):
    load_into({"source": str(tmp_path), "into": "encoder"}, state, model)
