"""CLIP's old classes: transformers 4, src/transformers/models/clip/modeling_flax_clip.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat.config_classes import ConfigClass
from zoo.compat.core import Tower
from zoo.compat.model import FlaxModel, with_head
from zoo.compat.module import Call, OldModule, token_inputs
from zoo.compat.outputs import Output


def _text_arguments(
  input_ids, attention_mask=None, position_ids=None, deterministic=True,
  output_attentions=False, output_hidden_states=False, return_dict=True,
):  # fmt: skip
  inputs = token_inputs(input_ids, attention_mask, position_ids)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _image_arguments(
  pixel_values, deterministic=True, output_attentions=False, output_hidden_states=False, return_dict=True
):
  inputs = {"image": jnp.asarray(pixel_values)}
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _both_arguments(
  input_ids, pixel_values, attention_mask=None, position_ids=None, deterministic=True,
  output_attentions=None, output_hidden_states=None, return_dict=None,
):  # fmt: skip
  inputs = token_inputs(input_ids, attention_mask, position_ids) | {"image": jnp.asarray(pixel_values)}
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _text(model, inputs, train):
  return model.text(inputs["tokens"], valid=inputs["valid"], positions=inputs["positions"], train=train)


def _states(out):
  return {"last_hidden_state": out["hidden"], "pooler_output": out["pooled"]}


def _run_text(model, inputs, train):
  return _states(_text(model, inputs, train))


def _run_projected(model, inputs, train):
  out = _text(model, inputs, train)
  return {"text_embeds": out["embedded"], "last_hidden_state": out["hidden"]}


def _run_image(model, inputs, train):
  return _states(model.image(inputs["image"], train=train))


def _run_both(model, inputs, train):
  text, image = _text(model, inputs, train), model.image(inputs["image"], train=train)
  units = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in map(_float32, (text, image))]
  logits = units[0] @ units[1].T * jnp.exp(_scale(model))
  return {
    "logits_per_image": logits.T,
    "logits_per_text": logits,
    "text_embeds": units[0],
    "image_embeds": units[1],
    "text_model_output": _states(text),
    "vision_model_output": _states(image),
  }


def _float32(out):
  return out["embedded"].astype(jnp.float32)


def _scale(model):
  return model.scale.astype(jnp.float32)


def _run_text_features(model, inputs, train):
  return _text(model, inputs, train)["embedded"]


def _run_image_features(model, inputs, train):
  return model.image(inputs["image"], train=train)["embedded"]


class FlaxCLIPTextModule(OldModule):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim] at the end of the text."""

  FAMILY, SILENT, TOWERS = "clip_text", ("tie_word_embeddings",), (Tower(part="text"),)
  NAMES = ((r"^(?!text_model\.|text_projection\.)", "text_model."),)
  WHOLE, WITHIN = ("clip", "text_config"), ("text_model.", "text_projection.")
  arguments, run = staticmethod(_text_arguments), staticmethod(_run_text)


class FlaxCLIPVisionModule(OldModule):
  """-> last_hidden_state [batch, 1 + patches, dim] (not normed), pooler_output [batch, dim] (normed).

  Images are [batch, height, width, channels].
  """

  FAMILY, SILENT, TOWERS = "clip_vision", ("tie_word_embeddings",), (Tower(part="image"),)
  NAMES = ((r"^(?!vision_model\.|visual_projection\.)", "vision_model."),)
  WHOLE, WITHIN = ("clip", "vision_config"), ("vision_model.", "visual_projection.")
  arguments, run = staticmethod(_image_arguments), staticmethod(_run_image)


class FlaxCLIPModule(OldModule):
  """-> logits_per_image, logits_per_text, text_embeds, image_embeds (of unit length), outputs of the two towers."""

  FAMILY, SILENT = "clip", ("tie_word_embeddings",)
  TOWERS = (Tower("text_model_output", "text"), Tower("vision_model_output", "image"))
  arguments, run = staticmethod(_both_arguments), staticmethod(_run_both)


class FlaxCLIPTextPreTrainedModel(FlaxModel):
  """The base class of CLIP's text towers."""

  config_class, module_class = ConfigClass("CLIPTextConfig"), FlaxCLIPTextModule

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    params: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
  ) -> Output:
    """int32 input_ids [batch, length], attention_mask of 0 and 1."""
    tokens = self._tokens(input_ids, attention_mask, position_ids)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, *tokens, not train, *flags)

  def _example(self, input_shape):
    return self._tokens(jnp.zeros(input_shape, jnp.int32))


class FlaxCLIPTextModel(FlaxCLIPTextPreTrainedModel):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim] at the end of the text."""


FlaxCLIPTextModelWithProjection, FlaxCLIPTextModelWithProjectionModule = with_head(
  FlaxCLIPTextModule,
  FlaxCLIPTextPreTrainedModel,
  "FlaxCLIPTextModelWithProjection",
  "-> text_embeds [batch, projection_dim] (not of unit length), last_hidden_state [batch, length, dim].",
  run=_run_projected,
  HEAD="projection",
)


class FlaxCLIPVisionPreTrainedModel(FlaxModel):
  """The base class of CLIP's image tower."""

  config_class, module_class = ConfigClass("CLIPVisionConfig"), FlaxCLIPVisionModule
  main_input_name = "pixel_values"

  def __call__(
    self,
    pixel_values: Any,
    params: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
  ) -> Output:
    """float pixel_values [batch, channels, height, width]: here, not in `module.apply`, channels come first."""
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, channels_last(pixel_values), not train, *flags)

  def _input_shape(self, config):
    return image_shape(config)

  def _example(self, input_shape):
    return (jnp.zeros(input_shape),)


class FlaxCLIPVisionModel(FlaxCLIPVisionPreTrainedModel):
  """-> last_hidden_state [batch, 1 + patches, dim] (not normed), pooler_output [batch, dim] (normed)."""


class FlaxCLIPPreTrainedModel(FlaxModel):
  """The base class of CLIP with both towers."""

  config_class, module_class = ConfigClass("CLIPConfig"), FlaxCLIPModule

  def __call__(
    self,
    input_ids: Any,
    pixel_values: Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    params: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
  ) -> Output:
    """int32 input_ids [texts, length] and float pixel_values [images, channels, height, width]."""
    ids, mask, positions = self._tokens(input_ids, attention_mask, position_ids)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._apply(params, dropout_rng, ids, channels_last(pixel_values), mask, positions, not train, *flags)

  def get_text_features(
    self, input_ids, attention_mask=None, position_ids=None, params=None, dropout_rng=None, train=False
  ):
    """int32 [batch, length] -> [batch, projection_dim], not of unit length."""
    call = _text_arguments(input_ids, attention_mask, position_ids, not train)
    return self._run(params, dropout_rng, call, _run_text_features)

  def get_image_features(self, pixel_values, params=None, dropout_rng=None, train=False):
    """float [batch, channels, height, width] -> [batch, projection_dim], not of unit length."""
    call = _image_arguments(channels_last(pixel_values), not train)
    return self._run(params, dropout_rng, call, _run_image_features)

  def _input_shape(self, config):
    return (1, 1), image_shape(config.vision_config)

  def _example(self, input_shape):
    ids, mask, positions = self._tokens(jnp.zeros(input_shape[0], jnp.int32))
    return ids, jnp.zeros(input_shape[1]), mask, positions


class FlaxCLIPModel(FlaxCLIPPreTrainedModel):
  """-> logits_per_image, logits_per_text, text_embeds, image_embeds (of unit length), outputs of the two towers."""


def image_shape(config: Any) -> tuple[int, ...]:
  """The shape of one image for a module: channels last."""
  size = config.image_size
  height, width = size if isinstance(size, list | tuple) else (size, size)
  return 1, height, width, getattr(config, "num_channels", 3)


def channels_last(pixel_values: Any) -> jnp.ndarray:
  """float32 [batch, channels, height, width] -> [batch, height, width, channels]"""
  return jnp.transpose(jnp.asarray(pixel_values, jnp.float32), (0, 2, 3, 1))
