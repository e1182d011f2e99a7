"""Old models of a separately trained encoder and decoder: transformers 4, modeling_flax_encoder_decoder.py."""

import importlib
from typing import Any, ClassVar

import jax.numpy as jnp

from zoo.compat import clip, seq2seq
from zoo.compat.composed import FlaxEncoderDecoderModule, FlaxVisionEncoderDecoderModule
from zoo.compat.config import entries_of, take_prefixed
from zoo.compat.config_classes import ConfigClass
from zoo.compat.folders import folder_of
from zoo.compat.generating import Generates
from zoo.compat.module import token_inputs
from zoo.compat.outputs import Output
from zoo.errors import UserError
from zoo.hub.files import CONFIG, read_json

# The order of further positional arguments.
_FLAGS = ("output_attentions", "output_hidden_states", "return_dict", "train", "params", "dropout_rng")
_DECODING = ("encoder_attention_mask", "decoder_attention_mask", "decoder_position_ids", "past_key_values")


class FlaxEncoderDecoderModel(Generates, seq2seq.PairModel):
  """-> logits [batch, decoder length, vocab_size] of a decoder with cross-attention to a text encoder."""

  config_class, base_model_prefix = ConfigClass("EncoderDecoderConfig"), "encoder_decoder"
  module_class = FlaxEncoderDecoderModule
  MODEL_TYPE: ClassVar[str] = "encoder-decoder"

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
    """int32 input_ids [batch, length], decoder_input_ids [batch, decoder length] and their masks of 0 and 1."""
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    texts = (input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, position_ids, decoder_position_ids)
    return self._apply(params, dropout_rng, *texts, *flags, not train)

  def decode(self, decoder_input_ids: Any, encoder_outputs: Any, *args: Any, **kwargs: Any) -> Output:
    """As for every encoder-decoder. A RoBERTa with a cache needs decoder_position_ids."""
    named = dict(zip(_DECODING, args)) | kwargs
    decoder = self.module.kinds[1]
    if named.get("past_key_values") and named.get("decoder_position_ids") is None and not decoder.LEARNS_PAD:
      raise UserError("past_key_values need decoder_position_ids, which count from pad + 1. Pass both.")
    return super().decode(decoder_input_ids, encoder_outputs, *args, **kwargs)

  def generate(self, *args: Any, **kwargs: Any) -> Output:
    """Generates an answer to each source, starting with decoder_start_token_id, or bos_token_id, of the config.

    Raises:
      UserError: neither exists, or an error of `generate`.
    """
    sections = [
      entries_of(x) for x in (self.generation_config, *args[1:2], kwargs.get("generation_config")) if x is not None
    ]
    start = next((x for e in (kwargs, *sections) if (x := e.get("decoder_start_token_id")) is not None), None)
    if start is None and kwargs.get("decoder_input_ids") is None and self.module.sizes["start"] is None:
      raise UserError("decoder_start_token_id is nowhere: set it in the config, or give it to generate.")
    return super().generate(*args, **kwargs)

  def _encoder_inputs(self, input_ids, attention_mask, position_ids):
    return token_inputs(input_ids, attention_mask, position_ids)

  @classmethod
  def from_encoder_decoder_pretrained(
    cls,
    encoder_pretrained_model_name_or_path: Any = None,
    decoder_pretrained_model_name_or_path: Any = None,
    *model_args: Any,
    **kwargs: Any,
  ) -> Any:
    """Combines two pretrained models; the cross-attention is randomly initialised.

    Args:
      encoder_pretrained_model_name_or_path, decoder_pretrained_model_name_or_path: folders or ids.
      **kwargs: encoder_NAME and decoder_NAME for the `from_pretrained` of each, or encoder_model and decoder_model
        themselves; dtype; the rest are entries of the config.
    """
    dtype = kwargs.pop("dtype", jnp.float32)
    options = take_prefixed(kwargs, "encoder_", "decoder_")
    auto = vars(importlib.import_module("zoo.compat.auto"))  # It knows this class.
    encoder = options["encoder_"].pop("model", None)
    if encoder is None:
      source = _named(encoder_pretrained_model_name_or_path, "encoder")
      encoder = auto["FlaxAutoModel"].from_pretrained(source, *model_args, **options["encoder_"])
    decoder = options["decoder_"].pop("model", None)
    if decoder is None:
      source = _named(decoder_pretrained_model_name_or_path, "decoder")
      config = options["decoder_"].pop("config", None)
      config = read_json(folder_of(source, "") / CONFIG) if config is None else entries_of(config)
      config |= {"is_decoder": True, "add_cross_attention": True}
      decoder = auto["FlaxAutoModelForCausalLM"].from_pretrained(source, config=config, **options["decoder_"])
    crossing = entries_of(decoder.config) | {"is_decoder": True, "add_cross_attention": True}
    entries = {"model_type": cls.MODEL_TYPE, "is_encoder_decoder": True, "encoder": entries_of(encoder.config)}
    model = cls(cls.config_class.from_dict(entries | {"decoder": crossing} | kwargs), dtype=dtype)
    model.params = {**model.params, "encoder": encoder.params, "decoder": decoder.params}
    return model


class FlaxVisionEncoderDecoderModel(FlaxEncoderDecoderModel):
  """-> logits [batch, decoder length, vocab_size] of a decoder with cross-attention to an image encoder."""

  config_class, base_model_prefix = ConfigClass("VisionEncoderDecoderConfig"), "vision_encoder_decoder"
  module_class = FlaxVisionEncoderDecoderModule
  main_input_name = "pixel_values"
  MODEL_TYPE: ClassVar[str] = "vision-encoder-decoder"

  def __call__(
    self,
    pixel_values: Any,
    decoder_input_ids: Any = None,
    decoder_attention_mask: Any = None,
    decoder_position_ids: Any = None,
    *args: Any,
    **kwargs: Any,
  ) -> Output:
    """float pixel_values [batch, channels, height, width], int32 decoder_input_ids [batch, decoder length], a mask.

    Then: output_attentions, output_hidden_states, return_dict, train, params, dropout_rng.
    """
    named = dict(zip(_FLAGS, args)) | kwargs
    *flags, train, params, rng = (named.pop(name, None) for name in _FLAGS)
    if named:
      raise UserError(f"{type(self).__name__} is given {next(iter(named))}, which it does not take. Leave it out.")
    text = (decoder_input_ids, decoder_attention_mask, decoder_position_ids)
    return self._apply(params, rng, clip.channels_last(pixel_values), *text, *self._flags(*flags), not train)

  def encode(self, pixel_values: Any, *args: Any, **kwargs: Any) -> Output:
    """-> last_hidden_state [batch, 1 + patches, dim]; pixel_values are followed by output_attentions and the rest."""
    return super().encode(pixel_values, None, None, *args, **kwargs)

  def decode(
    self,
    decoder_input_ids: Any,
    encoder_outputs: Any,
    decoder_attention_mask: Any = None,
    decoder_position_ids: Any = None,
    *args: Any,
    **kwargs: Any,
  ) -> Output:
    """As for every encoder-decoder; decoder_position_ids are followed by past_key_values and the rest."""
    text = (decoder_attention_mask, decoder_position_ids)
    return super().decode(decoder_input_ids, encoder_outputs, None, *text, *args, **kwargs)

  def _encoder_inputs(self, input_ids, attention_mask, position_ids):
    return {"image": clip.channels_last(input_ids), "valid": None}

  def _source(self, input_ids):
    return clip.channels_last(input_ids)


def _named(source: Any, part: str) -> Any:
  if source is None:
    raise UserError(f"{part}_pretrained_model_name_or_path is missing. Name a folder or an id, or give {part}_model.")
  return source
