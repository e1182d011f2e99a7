"""T5's old classes: transformers 4, src/transformers/models/t5/modeling_flax_t5.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat.config_classes import ConfigClass
from zoo.compat.core import Tower
from zoo.compat.model import FlaxModel
from zoo.compat.module import Call, OldModule, token_inputs
from zoo.compat.outputs import Output


def _encoder_arguments(
  input_ids, attention_mask=None, output_attentions=False, output_hidden_states=False, return_dict=True,
  deterministic=True,
):  # fmt: skip
  inputs = token_inputs(input_ids, attention_mask, None)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _run_encoder(model, inputs, train):
  return {"last_hidden_state": model.encode(inputs["tokens"], valid=inputs["valid"], train=train)}


class FlaxT5EncoderModule(OldModule):
  """-> last_hidden_state [batch, length, d_model], normed, as the last of hidden_states is."""

  FAMILY, HEAD, TOWERS = "t5", "encoder", (Tower(part="encoder", last="norm"),)
  arguments, run = staticmethod(_encoder_arguments), staticmethod(_run_encoder)


class FlaxT5PreTrainedModel(FlaxModel):
  """T5's base class."""

  config_class, base_model_prefix, module_class = ConfigClass("T5Config"), "transformer", FlaxT5EncoderModule


class FlaxT5EncoderModel(FlaxT5PreTrainedModel):
  """-> last_hidden_state [batch, length, d_model], normed, as the last of hidden_states is."""

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    dropout_rng: Any = None,
  ) -> Output:
    """int32 input_ids [batch, length], attention_mask of 0 and 1; the order is another than that of CLIP and BERT."""
    ids, mask, _ = self._tokens(input_ids, attention_mask)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, ids, mask, *flags, not train)

  encode = __call__

  def _example(self, input_shape):
    return self._tokens(jnp.zeros(input_shape, jnp.int32))[:2]
