import importlib

import jax
import pytest

import zoo
from zoo.build import count_parameters
from zoo.config.registry import names


# As published: the papers' tables, the released checkpoints, and their ports counted tensor by tensor.
@pytest.mark.parametrize("family", names("models"))
def test_has_as_many_parameters_as_published(family):
  module = importlib.import_module(f"zoo.models.{family}")
  # Scanned layers are as many and quicker to trace.
  counts = {variant: count_parameters(zoo.build(family, variant, scan=True)) for variant in module.VARIANTS}
  assert counts == module.PARAMETERS


def test_variants_are_listed_with_their_parameters_and_nothing_is_traced(monkeypatch):
  monkeypatch.setattr(jax, "eval_shape", None)
  listed = {f"{row.family}/{row.variant}": row.parameters for row in zoo.list_models()}
  assert listed["gpt/gpt2"] == 124_439_808
  assert len(listed) == sum(len(importlib.import_module(f"zoo.models.{name}").VARIANTS) for name in names("models"))


def test_the_encoder_of_bert_has_as_many_parameters_as_published():
  heads = {None: 109_482_240, "mlm": 109_514_298, "pretraining": 110_106_428}
  assert {head: count_parameters(zoo.build("bert", "base", head=head)) for head in heads} == heads
