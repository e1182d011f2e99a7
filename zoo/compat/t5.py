"""T5's old classes: transformers 4, src/transformers/models/t5/modeling_flax_t5.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat import seq2seq
from zoo.compat.config_classes import ConfigClass
from zoo.compat.core import Tower
from zoo.compat.generating import Generates
from zoo.compat.model import FlaxModel
from zoo.compat.module import Call, OldModule, refuse, token_inputs
from zoo.compat.outputs import Output
from zoo.compat.seq2seq import shift_tokens_right as shift_tokens_right

_MT5 = ("mt5", "t5")  # The default model_type, and the other one.


def _encoder_arguments(
  input_ids, attention_mask=None, output_attentions=False, output_hidden_states=False, return_dict=True,
  deterministic=True,
):  # fmt: skip
  inputs = token_inputs(input_ids, attention_mask, None)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _run_encoder(model, inputs, train):
  return {"last_hidden_state": model.encode(inputs["tokens"], valid=inputs["valid"], train=train)}


class FlaxT5EncoderModule(OldModule):
  """-> last_hidden_state [batch, length, d_model]after the final norm, as is hidden_states[-1]."""

  FAMILY, HEAD, TOWERS = "t5", "encoder", (Tower(part="encoder", last="norm"),)
  arguments, run = staticmethod(_encoder_arguments), staticmethod(_run_encoder)


def _arguments(
  input_ids=None, attention_mask=None, decoder_input_ids=None, decoder_attention_mask=None, encoder_outputs=None,
  output_attentions=None, output_hidden_states=None, return_dict=None, deterministic=True,
):  # fmt: skip
  refuse(encoder_outputs=encoder_outputs)
  inputs = seq2seq.pair_inputs(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


class FlaxT5Module(seq2seq.PairModule):
  """-> last_hidden_state [batch, decoder length, d_model], encoder_last_hidden_state [batch, length, d_model]."""

  FAMILY, TOWERS = "t5", seq2seq.NORMED
  arguments, run = staticmethod(_arguments), staticmethod(seq2seq.run_states)


class FlaxT5ForConditionalGenerationModule(FlaxT5Module):
  """-> logits [batch, decoder length, vocab_size], encoder_last_hidden_state [batch, length, d_model]."""

  HEAD, run = "lm", staticmethod(seq2seq.run_logits)

  @classmethod
  def adjusted(cls, sizes, entries):
    # Without files only the config is known; with files it is used if it says that weights are untied.
    return sizes | {"tied": sizes["tied"] and entries.get("tie_word_embeddings") is not False}


class FlaxT5PreTrainedModel(FlaxModel):
  """T5's base class."""

  config_class, base_model_prefix, module_class = ConfigClass("T5Config"), "transformer", FlaxT5Module


class _OfTwoTexts(FlaxT5PreTrainedModel, seq2seq.PairModel):
  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    decoder_input_ids: Any = None,
    decoder_attention_mask: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    dropout_rng: Any = None,
  ) -> Output:
    """int32 input_ids [batch, length], decoder_input_ids [batch, decoder length], and their masks of 0 and 1."""
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    if self._is_ours():
      inputs = seq2seq.pair_inputs(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask)
      return self._apply(params, dropout_rng, Call(inputs, not train, *flags))
    (ids, mask, _), (others, other, _) = (
      self._tokens(*pair) for pair in ((input_ids, attention_mask), (decoder_input_ids, decoder_attention_mask))
    )
    named = self._named(flags, train)
    return self._apply(params, dropout_rng, ids, mask, others, other, **named)

  # T5 has no position arguments.
  def encode(self, input_ids: Any, attention_mask: Any = None, *args: Any, **kwargs: Any) -> Output:
    """As for every encoder-decoder; attention_mask is followed by output_attentions and the rest."""
    return super().encode(input_ids, attention_mask, None, *args, **kwargs)

  def decode(
    self,
    decoder_input_ids: Any,
    encoder_outputs: Any,
    encoder_attention_mask: Any = None,
    decoder_attention_mask: Any = None,
    *args: Any,
    **kwargs: Any,
  ) -> Output:
    """As for every encoder-decoder; decoder_attention_mask is followed by past_key_values and the rest."""
    masks = (encoder_attention_mask, decoder_attention_mask)
    return super().decode(decoder_input_ids, encoder_outputs, *masks, None, *args, **kwargs)

  def _example(self, input_shape):
    return self._tokens(jnp.zeros(input_shape, jnp.int32))[:2] * 2


class FlaxT5Model(_OfTwoTexts):
  """-> last_hidden_state [batch, decoder length, d_model], encoder_last_hidden_state [batch, length, d_model]."""


class FlaxT5ForConditionalGeneration(Generates, _OfTwoTexts):
  """-> logits [batch, decoder length, vocab_size]; with `generate`."""

  module_class = FlaxT5ForConditionalGenerationModule


class FlaxT5EncoderModel(FlaxT5PreTrainedModel):
  """-> last_hidden_state [batch, length, d_model]after the final norm, as is hidden_states[-1]."""

  module_class = FlaxT5EncoderModule

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
    """int32 input_ids [batch, length], attention_mask of 0 and 1; the order differs from CLIP and BERT."""
    ids, mask, _ = self._tokens(input_ids, attention_mask)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, ids, mask, *flags, not train)

  encode = __call__

  def _example(self, input_shape):
    return self._tokens(jnp.zeros(input_shape, jnp.int32))[:2]


class FlaxMT5Module(FlaxT5Module):
  """Same as T5's."""

  TYPES = _MT5


class FlaxMT5EncoderModule(FlaxT5EncoderModule):
  """Same as T5's."""

  TYPES = _MT5


class FlaxMT5ForConditionalGenerationModule(FlaxT5ForConditionalGenerationModule):
  """Same as T5's."""

  TYPES = _MT5


class FlaxMT5Model(FlaxT5Model):
  """Same as T5's."""

  config_class, module_class = ConfigClass("MT5Config"), FlaxMT5Module


class FlaxMT5EncoderModel(FlaxT5EncoderModel):
  """Same as T5's."""

  config_class = ConfigClass("MT5Config")
  module_class = FlaxMT5EncoderModule


class FlaxMT5ForConditionalGeneration(FlaxT5ForConditionalGeneration):
  """Same as T5's."""

  config_class = ConfigClass("MT5Config")
  module_class = FlaxMT5ForConditionalGenerationModule
