"""DistilBERT's old classes: transformers 4, src/transformers/models/distilbert/modeling_flax_distilbert.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat.bert import HEADS, heads
from zoo.compat.config_classes import ConfigClass
from zoo.compat.model import FlaxModel, outputs
from zoo.compat.module import Call, OldModule, refuse, token_inputs
from zoo.compat.outputs import Output


def _arguments(
  input_ids, attention_mask=None, deterministic=True, output_attentions=False, output_hidden_states=False,
  return_dict=True,
):  # fmt: skip
  inputs = token_inputs(input_ids, attention_mask, None)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


class FlaxDistilBertModule(OldModule):
  """-> last_hidden_state [batch, length, dim]."""

  FAMILY = "distilbert"
  arguments, run = staticmethod(_arguments), staticmethod(outputs(last_hidden_state="hidden"))


class FlaxDistilBertPreTrainedModel(FlaxModel):
  """DistilBERT's base class: the call signature of its models."""

  config_class, base_model_prefix = ConfigClass("DistilBertConfig"), "distilbert"
  module_class = FlaxDistilBertModule

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    head_mask: Any = None,
    params: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
  ) -> Output:
    """int32 input_ids [batch, length], attention_mask of 0 and 1; of a multiple choice [batch, choices, length]."""
    refuse(head_mask=head_mask)
    ids, mask, _ = self._tokens(input_ids, attention_mask)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, ids, mask, not train, *flags)

  def _example(self, input_shape):
    return self._tokens(jnp.zeros(input_shape, jnp.int32))[:2]


class FlaxDistilBertModel(FlaxDistilBertPreTrainedModel):
  """-> last_hidden_state [batch, length, dim]."""


globals().update(heads(FlaxDistilBertModule, FlaxDistilBertPreTrainedModel, "FlaxDistilBert", HEADS))
