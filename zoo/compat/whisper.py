"""Whisper's old classes: transformers 4, src/transformers/models/whisper/modeling_flax_whisper.py."""

from typing import Any, ClassVar

import jax.numpy as jnp

from zoo.compat import seq2seq
from zoo.compat.config import Config, entries_of
from zoo.compat.config_classes import ConfigClass
from zoo.compat.core import Tower
from zoo.compat.generating import Generating
from zoo.compat.module import Call, OldModule, refuse
from zoo.compat.outputs import Output


def _arguments(
  input_features, decoder_input_ids=None, decoder_attention_mask=None, decoder_position_ids=None, position_ids=None,
  attention_mask=None, output_attentions=False, output_hidden_states=False, return_dict=True, deterministic=True,
):  # fmt: skip
  return Call(
    seq2seq.pair_inputs(frames(input_features), None, decoder_input_ids, decoder_attention_mask, decoder_position_ids),
    deterministic,
    output_attentions,
    output_hidden_states,
    return_dict,
  )


def _audio_arguments(
  input_features, encoder_outputs=None, output_attentions=None, output_hidden_states=None, return_dict=True,
  deterministic=True,
):  # fmt: skip
  refuse(encoder_outputs=encoder_outputs)
  flags = (deterministic, output_attentions, output_hidden_states, return_dict)
  return Call({"tokens": frames(input_features), "valid": None}, *flags)


def frames(input_features: Any) -> jnp.ndarray:
  """float32 [batch, mels, frames] -> [batch, frames, mels]"""
  return jnp.transpose(jnp.asarray(input_features, jnp.float32), (0, 2, 1))


def _run_classes(model, inputs, train):
  return {"logits": model(inputs["tokens"], train=train)["logits"]}


class FlaxWhisperModule(seq2seq.PairModule):
  """-> last_hidden_state [batch, decoder length, dim], encoder_last_hidden_state [batch, frames / 2, dim]."""

  FAMILY, TOWERS = "whisper", seq2seq.NORMED
  arguments, run = staticmethod(_arguments), staticmethod(seq2seq.run_states)


class FlaxWhisperForConditionalGenerationModule(FlaxWhisperModule):
  """-> logits [batch, decoder length, vocab_size], encoder_last_hidden_state [batch, frames / 2, dim]."""

  HEAD, run = "lm", staticmethod(seq2seq.run_logits)


class FlaxWhisperForAudioClassificationModule(OldModule):
  """-> logits [batch, num_labels]."""

  FAMILY, HEAD, TOWERS = "whisper", "classify", (Tower(part="encoder", last="norm"),)
  arguments, run = staticmethod(_audio_arguments), staticmethod(_run_classes)


class FlaxWhisperPreTrainedModel(seq2seq.PairModel):
  """Whisper's base class."""

  config_class, base_model_prefix, module_class = ConfigClass("WhisperConfig"), "model", FlaxWhisperModule
  main_input_name = "input_features"

  SHOWS_SOURCE: ClassVar[bool] = False

  def encode(self, input_features: Any, attention_mask: Any = None, *args: Any, **kwargs: Any) -> Output:
    """float [batch, mels, frames] -> last_hidden_state [batch, frames / 2, dim]; attention_mask is ignored."""
    return super().encode(input_features, attention_mask, None, *args, **kwargs)

  def _encoder_inputs(self, input_ids, attention_mask, position_ids):
    return {"tokens": frames(input_ids), "valid": None}

  def _input_shape(self, config):
    return 1, config.num_mel_bins, 2 * config.max_source_positions

  def _example(self, input_shape):
    ids, mask, positions = self._tokens(jnp.zeros((input_shape[0], 1), jnp.int32))
    return jnp.zeros(input_shape), ids, mask, positions


class _OfSoundAndText(FlaxWhisperPreTrainedModel):
  def __call__(
    self,
    input_features: Any,
    decoder_input_ids: Any,
    attention_mask: Any = None,
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
    """float input_features [batch, mels, frames], int32 decoder_input_ids [batch, decoder length] and its mask.

    attention_mask and position_ids are ignored, as before; decoder_position_ids count the unmasked tokens.
    """
    if decoder_position_ids is None and decoder_attention_mask is not None:
      shown = jnp.asarray(decoder_attention_mask, jnp.int32)
      decoder_position_ids = jnp.maximum(shown.cumsum(-1) * shown - 1, 0)
    text = (decoder_input_ids, decoder_attention_mask, decoder_position_ids)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, input_features, *text, **self._named(flags, train))


class FlaxWhisperModel(_OfSoundAndText):
  """-> last_hidden_state [batch, decoder length, dim], encoder_last_hidden_state [batch, frames / 2, dim]."""


class FlaxWhisperForConditionalGeneration(Generating, _OfSoundAndText):
  """-> logits [batch, decoder length, vocab_size]; `generate` transcribes."""

  module_class = FlaxWhisperForConditionalGenerationModule

  def generate(
    self,
    input_features: Any,
    generation_config: Any = None,
    logits_processor: Any = None,
    return_timestamps: bool | None = None,
    task: str | None = None,
    language: str | None = None,
    is_multilingual: bool | None = None,
    **kwargs: Any,
  ) -> Output:
    """As for every model, with float input_features [batch, mels, frames].

    Args:
      task: "transcribe" or "translate".
      language: its name, code or token, "english", "en" or "<|en|>"; by default the likeliest of the
        generation_config's lang_to_id, while transformers 4 took the likeliest of all tokens.
      is_multilingual: False: task and language are ignored, and an answer begins without them.
      return_timestamps: True is not supported.
      generation_config, logits_processor, **kwargs: as for every model; prng_key, trace and params by keyword.
    """
    refuse(return_timestamps=return_timestamps)
    options = dict(task=task, language=language, is_multilingual=is_multilingual)
    entries = entries_of(self.generation_config if generation_config is None else generation_config)
    entries |= {name: x for name, x in options.items() if x is not None}
    if not entries.get("is_multilingual", True):
      entries = {name: x for name, x in entries.items() if name not in ("task", "language", "lang_to_id", "task_to_id")}
    config = Config(**entries)
    key, params = kwargs.pop("prng_key", None), kwargs.pop("params", None)
    kwargs.pop("trace", None)
    return self._generate(input_features, config, key, params, logits_processor, kwargs)

  def _source(self, input_ids):
    return frames(input_ids)


class FlaxWhisperForAudioClassification(FlaxWhisperPreTrainedModel):
  """-> logits [batch, num_labels]."""

  module_class = FlaxWhisperForAudioClassificationModule

  def __call__(
    self,
    input_features: Any,
    attention_mask: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    dropout_rng: Any = None,
    **kwargs: Any,
  ) -> Output:
    """float input_features [batch, mels, frames]; attention_mask is ignored, as before."""
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, input_features, None, *flags, not train)
