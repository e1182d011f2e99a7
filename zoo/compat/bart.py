"""The old classes of BART and Marian: transformers 4, modeling_flax_bart.py and modeling_flax_marian.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat import causal, seq2seq
from zoo.compat.config_classes import ConfigClass
from zoo.compat.core import Tower
from zoo.compat.generating import Generates
from zoo.compat.model import with_head
from zoo.compat.module import Call
from zoo.compat.outputs import Output
from zoo.compat.seq2seq import shift_tokens_right
from zoo.convert.rules.layouts import Rule


def _arguments(
  input_ids, attention_mask=None, decoder_input_ids=None, decoder_attention_mask=None, position_ids=None,
  decoder_position_ids=None, output_attentions=False, output_hidden_states=False, return_dict=True, deterministic=True,
):  # fmt: skip
  seq2seq.in_order(position_ids)
  masks = (attention_mask, decoder_attention_mask)
  inputs = seq2seq.pair_inputs(input_ids, masks[0], decoder_input_ids, masks[1], decoder_position_ids)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _run_answer(model, inputs, train):
  out = _read(model, inputs, train)
  return {"start_logits": out["start"], "end_logits": out["end"], "encoder_last_hidden_state": out["encoded"]}


def _run_classes(model, inputs, train):
  out = _read(model, inputs, train)
  return {"logits": out["logits"], "encoder_last_hidden_state": out["encoded"]}


def _read(model, inputs, train):
  masks = dict(valid=inputs["valid"], decoder_valid=inputs["decoder_valid"])
  return model(inputs["tokens"], inputs["decoder_tokens"], **masks, train=train)


class FlaxBartModule(seq2seq.PairModule):
  """-> last_hidden_state [batch, decoder length, dim], encoder_last_hidden_state [batch, length, dim]."""

  FAMILY = "bart"
  arguments, run = staticmethod(_arguments), staticmethod(seq2seq.run_states)


class FlaxBartForConditionalGenerationModule(FlaxBartModule):
  """-> logits [batch, decoder length, vocab_size], encoder_last_hidden_state [batch, length, dim]."""

  HEAD, QUIET, run = "lm", ("final_logits_bias",), staticmethod(seq2seq.run_logits)

  @classmethod
  def adjusted(cls, sizes, entries):
    return sizes | {"logits_bias": True}


class FlaxMarianModule(FlaxBartModule):
  """-> last_hidden_state [batch, decoder length, dim], encoder_last_hidden_state [batch, length, dim]."""

  FAMILY = "marian"


class FlaxMarianMTModule(FlaxBartForConditionalGenerationModule):
  """-> logits [batch, decoder length, vocab_size], encoder_last_hidden_state [batch, length, dim]."""

  FAMILY = "marian"


class FlaxBartPreTrainedModel(seq2seq.PairModel):
  """BART's base class: the call signature of its models."""

  config_class, base_model_prefix, module_class = ConfigClass("BartConfig"), "model", FlaxBartModule

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    decoder_input_ids: Any = None,
    decoder_attention_mask: Any = None,
    position_ids: Any = None,
    decoder_position_ids: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    dropout_rng: Any = None,
  ) -> Output:
    """int32 input_ids [batch, length], decoder_input_ids [batch, decoder length] and their masks of 0 and 1.

    decoder_input_ids default to input_ids shifted right after decoder_start_token_id.
    """
    if decoder_input_ids is None:
      start = self.config.decoder_start_token_id
      decoder_input_ids = shift_tokens_right(jnp.asarray(input_ids, jnp.int32), 0, 0 if start is None else start)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    if self._is_ours():
      texts = (input_ids, attention_mask, decoder_input_ids, decoder_attention_mask)
      return self._apply(params, dropout_rng, *texts, position_ids, decoder_position_ids, *flags, not train)
    ids, mask, places = self._tokens(input_ids, attention_mask, position_ids)
    others, other, others_places = self._tokens(decoder_input_ids, decoder_attention_mask, decoder_position_ids)
    return self._apply(params, dropout_rng, ids, mask, others, other, places, others_places, *flags, not train)

  def _example(self, input_shape):
    ids, mask, positions = self._tokens(jnp.zeros(input_shape, jnp.int32))
    return ids, mask, ids, mask, positions, positions


class FlaxMarianPreTrainedModel(FlaxBartPreTrainedModel):
  """Marian's base class; called as BART's."""

  config_class, module_class = ConfigClass("MarianConfig"), FlaxMarianModule


class FlaxBartModel(FlaxBartPreTrainedModel):
  """-> last_hidden_state [batch, decoder length, dim], encoder_last_hidden_state [batch, length, dim]."""


class FlaxMarianModel(FlaxMarianPreTrainedModel):
  """-> last_hidden_state [batch, decoder length, dim], encoder_last_hidden_state [batch, length, dim]."""


class FlaxBartForConditionalGeneration(Generates, FlaxBartPreTrainedModel):
  """-> logits [batch, decoder length, vocab_size]; with `generate`."""

  module_class = FlaxBartForConditionalGenerationModule


class FlaxMarianMTModel(Generates, FlaxMarianPreTrainedModel):
  """-> logits [batch, decoder length, vocab_size]; with `generate`."""

  module_class = FlaxMarianMTModule


FlaxBartForSequenceClassification, FlaxBartForSequenceClassificationModule = with_head(
  FlaxBartModule,
  FlaxBartPreTrainedModel,
  "FlaxBartForSequenceClassification",
  "-> logits [batch, num_labels], read at the last end of the text.",
  run=_run_classes,
  HEAD="classify",
)
FlaxBartForQuestionAnswering, FlaxBartForQuestionAnsweringModule = with_head(
  FlaxBartModule,
  FlaxBartPreTrainedModel,
  "FlaxBartForQuestionAnswering",
  "-> start_logits, end_logits [batch, length].",
  run=_run_answer,
  HEAD="question_answering",
)


def _causal_arguments(
  input_ids, attention_mask=None, position_ids=None, encoder_hidden_states=None, encoder_attention_mask=None,
  init_cache=False, output_attentions=False, output_hidden_states=False, return_dict=True, deterministic=True,
):  # fmt: skip
  read = (encoder_hidden_states, encoder_attention_mask)
  inputs = causal.decoder_inputs(input_ids, attention_mask, position_ids, *read)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


class FlaxBartForCausalLMModule(causal.CausalModule):
  """-> logits [batch, length, vocab_size], from the decoder alone; with optional cross-attention."""

  FAMILY, HEAD, TOWERS = "bart", "lm", (Tower(part="decoder", cross=True),)
  SILENT = ("add_cross_attention", "is_decoder", "cross_attention_hidden_size")
  CLASSES = ("BartForCausalLM",)
  arguments = staticmethod(_causal_arguments)

  @classmethod
  def adjusted(cls, sizes, entries):
    return super().adjusted(sizes, entries) | {"causal": True, "crosses": True, "logits_bias": False}

  @classmethod
  def decoder_table(cls, table, crosses):
    embed = "model.decoder.embed_tokens.weight"

    def rules(sizes):
      decoder_rules = [rule for rule in table.rules(sizes) if rule.ours.startswith("decoder/")]
      return [*decoder_rules, Rule("embed/embedding", embed)]

    # Files of a full BART have an encoder, which shares its token embedding with the decoder.
    ignored = (*table.IGNORED, r"(model\.)?encoder\..*", "final_logits_bias")
    tied = {"model.shared.weight": embed, "lm_head.weight": embed}
    return causal.like(table, rules=rules, HEADS={cls.HEAD: cls.CLASSES}, IGNORED=ignored, TIED=tied)


class FlaxBartDecoderPreTrainedModel(causal.CausalModel):
  """The base class of BART's decoder alone."""

  config_class, base_model_prefix = ConfigClass("BartConfig"), "model"
  module_class = FlaxBartForCausalLMModule

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    past_key_values: Any = None,
    dropout_rng: Any = None,
  ) -> Output:
    """int32 input_ids [batch, length]; encoder_hidden_states [batch, source length, dim], with their own mask."""
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    named = self._named(flags, train)
    tokens = self._tokens(input_ids, attention_mask, position_ids)
    read = (encoder_hidden_states, encoder_attention_mask)
    return self._in_cache(past_key_values, params, dropout_rng, *tokens, *read, **named)

  def _example(self, input_shape):
    return self._tokens(jnp.zeros(input_shape, jnp.int32))


class FlaxBartForCausalLM(FlaxBartDecoderPreTrainedModel):
  """-> logits [batch, length, vocab_size]; with `generate`."""
