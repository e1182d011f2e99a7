"""BERT's old classes: transformers 4, src/transformers/models/bert/modeling_flax_bert.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat.causal import causal_text
from zoo.compat.config_classes import ConfigClass
from zoo.compat.model import FlaxModel, outputs, with_head
from zoo.compat.module import Call, OldModule, refuse, token_inputs
from zoo.compat.outputs import Output


def text_arguments(
  input_ids, attention_mask=None, token_type_ids=None, position_ids=None, head_mask=None, deterministic=True,
  output_attentions=False, output_hidden_states=False, return_dict=True,
):  # fmt: skip
  """The arguments of text encoders, as a `Call`."""
  inputs = token_inputs(input_ids, attention_mask, position_ids)
  if head_mask is not None:
    inputs["head_mask"] = jnp.asarray(head_mask, jnp.float32)
  inputs["segments"] = None if token_type_ids is None else jnp.asarray(token_type_ids, jnp.int32)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _decoding_arguments(
  input_ids, attention_mask=None, token_type_ids=None, position_ids=None, head_mask=None, encoder_hidden_states=None,
  encoder_attention_mask=None, init_cache=False, deterministic=True,
  output_attentions=False, output_hidden_states=False, return_dict=True,
):  # fmt: skip
  refuse(encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask)
  refuse(init_cache=init_cache)
  flags = (deterministic, output_attentions, output_hidden_states, return_dict)
  return text_arguments(input_ids, attention_mask, token_type_ids, position_ids, head_mask, *flags)


class FlaxBertModule(OldModule):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim], without it if not add_pooling_layer."""

  FAMILY, POOLER = "bert", "pooler"
  arguments = staticmethod(_decoding_arguments)
  run = staticmethod(outputs(last_hidden_state="hidden", pooler_output="pooled"))


class FlaxBertPreTrainedModel(FlaxModel):
  """BERT's base class: the call signature of its models."""

  config_class, base_model_prefix, module_class = ConfigClass("BertConfig"), "bert", FlaxBertModule

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    position_ids: Any = None,
    head_mask: Any = None,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    params: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    past_key_values: Any = None,
  ) -> Output:
    """int32 input_ids [batch, length] and, of the same shape, attention_mask, token_type_ids and position_ids.

    For FlaxBertForMultipleChoice all are [batch, choices, length]. head_mask is [layers, heads], by which attention
    weights are multiplied by. The other arguments of a decoder are refused.
    """
    refuse(past_key_values=past_key_values, encoder_hidden_states=encoder_hidden_states)
    refuse(encoder_attention_mask=encoder_attention_mask)
    ids, mask, positions = self._tokens(input_ids, attention_mask, position_ids)
    if not self._is_ours():
      token_type_ids = jnp.zeros_like(ids) if token_type_ids is None else jnp.asarray(token_type_ids, jnp.int32)
      head_mask = jnp.ones(self._heads_shape()) if head_mask is None else head_mask
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    named = self._named(flags, train)
    return self._apply(params, dropout_rng, ids, mask, token_type_ids, positions, head_mask, **named)

  def _heads_shape(self):
    return self.config.num_hidden_layers, self.config.num_attention_heads

  def _example(self, input_shape):
    ids, mask, positions = self._tokens(jnp.zeros(input_shape, jnp.int32))
    return ids, mask, jnp.zeros_like(ids), positions, jnp.ones(self._heads_shape())


class FlaxBertModel(FlaxBertPreTrainedModel):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim]."""


# Suffix of the class name -> the zoo's head, {old output: ours}, and shapes for the docstring.
HEADS = {
  "MaskedLM": ("mlm", dict(logits="mlm"), "-> logits [batch, length, vocab_size]."),
  "SequenceClassification": ("classify", dict(logits="logits"), "-> logits [batch, num_labels]."),
  "MultipleChoice": ("multiple_choice", dict(logits="logits"), "-> logits [batch, choices]."),
  "TokenClassification": ("classify_tokens", dict(logits="logits"), "-> logits [batch, length, num_labels]."),
  "QuestionAnswering": (
    "question_answering",
    dict(start_logits="start", end_logits="end"),
    "-> start_logits, end_logits [batch, length].",
  ),
}
OWN_HEADS = {
  "PreTraining": (
    "pretraining",
    dict(prediction_logits="mlm", seq_relationship_logits="nsp"),
    "-> prediction_logits [batch, length, vocab_size], seq_relationship_logits [batch, 2].",
  ),
  "NextSentencePrediction": (
    "next_sentence",
    dict(logits="nsp"),
    "-> logits [batch, 2], of which the first says that it is the next.",
  ),
}


def heads(module, model, front, rows, run=outputs, **attributes):
  """Builds old classes with heads and their modules: `front`ForMaskedLM, ...; `own`: attributes of the modules."""
  pairs = (with_head(module, model, f"{front}For{name}", doc, run=run(**names), HEAD=head, POOLER=None, **attributes)
           for name, (head, names, doc) in rows.items())  # fmt: skip
  return {kind.__name__: kind for pair in pairs for kind in pair}


globals().update(causal_text(FlaxBertModule, FlaxBertPreTrainedModel, "FlaxBert", "BertLMHeadModel", "BertForCausalLM"))
globals().update(
  heads(FlaxBertModule, FlaxBertPreTrainedModel, "FlaxBert", OWN_HEADS | HEADS, arguments=text_arguments)
)
