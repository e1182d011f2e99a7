"""CLIP's old classes: transformers 4, src/transformers/models/clip/modeling_flax_clip.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat.model import FlaxModel
from zoo.compat.module import Call, token_inputs
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


class _Text(FlaxModel):
  FAMILY, FRONT, TOWERS = "clip_text", "text_model.", {"": "text"}
  WHOLE, WITHIN = ("clip", "text_config"), ("text_model.", "text_projection.")
  arguments = staticmethod(_text_arguments)

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
    flags = (not train, output_attentions, output_hidden_states, return_dict)
    return self._call(_text_arguments(input_ids, attention_mask, position_ids, *flags), params, dropout_rng)


class FlaxCLIPTextModel(_Text):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim] at the end of the text."""

  run = staticmethod(_run_text)


class FlaxCLIPTextModelWithProjection(_Text):
  """-> text_embeds [batch, projection_dim] (not of unit length), last_hidden_state [batch, length, dim]."""

  HEAD = "projection"
  run = staticmethod(_run_projected)


class FlaxCLIPVisionModel(FlaxModel):
  """-> last_hidden_state [batch, 1 + patches, dim] (not normed), pooler_output [batch, dim] (normed)."""

  FAMILY, FRONT, TOWERS = "clip_vision", "vision_model.", {"": "image"}
  WHOLE, WITHIN = ("clip", "vision_config"), ("vision_model.", "visual_projection.")
  arguments, run = staticmethod(_image_arguments), staticmethod(_run_image)

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
    flags = (not train, output_attentions, output_hidden_states, return_dict)
    return self._call(_image_arguments(_channels_last(pixel_values), *flags), params, dropout_rng)


class FlaxCLIPModel(FlaxModel):
  """-> logits_per_image, logits_per_text, text_embeds, image_embeds (of unit length), outputs of the two towers."""

  FAMILY, TOWERS = "clip", {"text_model_output": "text", "vision_model_output": "image"}
  arguments, run = staticmethod(_both_arguments), staticmethod(_run_both)

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
    flags = (not train, output_attentions, output_hidden_states, return_dict)
    call = _both_arguments(input_ids, _channels_last(pixel_values), attention_mask, position_ids, *flags)
    return self._call(call, params, dropout_rng)

  def get_text_features(
    self, input_ids, attention_mask=None, position_ids=None, params=None, dropout_rng=None, train=False
  ):
    """int32 [batch, length] -> [batch, projection_dim], not of unit length."""
    call = _text_arguments(input_ids, attention_mask, position_ids, not train)
    return self._call(call, params, dropout_rng, _run_text_features)

  def get_image_features(self, pixel_values, params=None, dropout_rng=None, train=False):
    """float [batch, channels, height, width] -> [batch, projection_dim], not of unit length."""
    call = _image_arguments(_channels_last(pixel_values), not train)
    return self._call(call, params, dropout_rng, _run_image_features)


def _channels_last(pixel_values):
  return jnp.transpose(jnp.asarray(pixel_values, jnp.float32), (0, 2, 3, 1))
