"""BERT's old classes: transformers 4, src/transformers/models/bert/modeling_flax_bert.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat.model import FlaxModel
from zoo.compat.module import Call, refuse, token_inputs
from zoo.compat.outputs import Output


def _arguments(
  input_ids, attention_mask=None, token_type_ids=None, position_ids=None, head_mask=None, deterministic=True,
  output_attentions=False, output_hidden_states=False, return_dict=True,
):  # fmt: skip
  refuse(head_mask=head_mask)
  inputs = token_inputs(input_ids, attention_mask, position_ids)
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
  return _arguments(input_ids, attention_mask, token_type_ids, position_ids, head_mask, *flags)


def _runs(**names: str):
  """Outputs by their old names, from those of the zoo."""

  def run(model, inputs, train):
    tokens, given = inputs["tokens"], {name: inputs[name] for name in ("segments", "valid", "positions")}
    out = model(tokens, **given, train=train)
    return {theirs: out[ours] for theirs, ours in names.items()}

  return staticmethod(run)


class _Bert(FlaxModel):
  FAMILY = "bert"
  arguments = staticmethod(_arguments)

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

    Of FlaxBertForMultipleChoice all are [batch, choices, length]. The other arguments of a decoder are refused.
    """
    refuse(past_key_values=past_key_values)
    flags = (not train, output_attentions, output_hidden_states, return_dict)
    decoder = (head_mask, encoder_hidden_states, encoder_attention_mask, False)
    call = _decoding_arguments(input_ids, attention_mask, token_type_ids, position_ids, *decoder, *flags)
    return self._call(call, params, dropout_rng)


class FlaxBertModel(_Bert):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim]."""

  arguments = staticmethod(_decoding_arguments)
  run = _runs(last_hidden_state="hidden", pooler_output="pooled")


class FlaxBertForPreTraining(_Bert):
  """-> prediction_logits [batch, length, vocab_size], seq_relationship_logits [batch, 2]."""

  HEAD, run = "pretraining", _runs(prediction_logits="mlm", seq_relationship_logits="nsp")


class FlaxBertForMaskedLM(_Bert):
  """-> logits [batch, length, vocab_size]."""

  HEAD, run = "mlm", _runs(logits="mlm")


class FlaxBertForNextSentencePrediction(_Bert):
  """-> logits [batch, 2], of which the first says that it is the next."""

  HEAD, run = "next_sentence", _runs(logits="nsp")


class FlaxBertForSequenceClassification(_Bert):
  """-> logits [batch, num_labels]."""

  HEAD, run = "classify", _runs(logits="logits")


class FlaxBertForMultipleChoice(_Bert):
  """-> logits [batch, choices]."""

  HEAD, run = "multiple_choice", _runs(logits="logits")


class FlaxBertForTokenClassification(_Bert):
  """-> logits [batch, length, num_labels]."""

  HEAD, run = "classify_tokens", _runs(logits="logits")


class FlaxBertForQuestionAnswering(_Bert):
  """-> start_logits, end_logits [batch, length]."""

  HEAD, run = "question_answering", _runs(start_logits="start", end_logits="end")
