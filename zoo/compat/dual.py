"""The old dual encoder of a separately trained image and text encoder: modeling_flax_vision_text_dual_encoder.py."""

import importlib
import types
from typing import Any, NamedTuple

import jax.numpy as jnp

from zoo.compat import clip
from zoo.compat.bert import text_arguments
from zoo.compat.composed import IMAGES, TEXTS, inside, part_of
from zoo.compat.config import entries_of, take_prefixed
from zoo.compat.config_classes import ConfigClass
from zoo.compat.core import Tower
from zoo.compat.model import FlaxModel
from zoo.compat.module import Call, OldModule
from zoo.compat.outputs import Output
from zoo.convert.rules.layouts import SAME, Rule, linear
from zoo.errors import UserError
from zoo.layers import initial
from zoo.layers.dense import Dense
from zoo.models.composed import EncoderPair

_TEXTS = {kind: module for kind, module in TEXTS.items() if kind != "distilbert"}  # It has no pooled output.


class Both(NamedTuple):
  """Runs one or both encoders: a function of the zoo's model, inputs and train, equal for equal encoders.

  text, image: kinds of modules. does: "text", "image", or "" for both.
  """

  text: Any
  image: Any
  does: str = ""

  def __call__(self, model, inputs, train):
    tokens = {name: x for name, x in inputs.items() if name != "image"}
    text = self.text.run(model.text, tokens, train) if self.does != "image" else None
    image = self.image.run(model.image, inputs, train) if self.does != "text" else None
    texts = None if text is None else model.text_projection(text["pooler_output"])
    pictures = None if image is None else model.image_projection(image["pooler_output"])
    if self.does:
      return texts if pictures is None else pictures
    units = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in map(_float32, (texts, pictures))]
    logits = units[0] @ units[1].T * jnp.exp(_float32(model.scale))
    embeds = {"text_embeds": units[0], "image_embeds": units[1]}
    towers = {"text_model_output": text, "vision_model_output": image}
    return {"logits_per_image": logits.T, "logits_per_text": logits, **embeds, **towers}


def _float32(x):
  return x.astype(jnp.float32)


def _arguments(
  input_ids=None, pixel_values=None, attention_mask=None, position_ids=None, token_type_ids=None, deterministic=True,
  output_attentions=None, output_hidden_states=None, return_dict=None,
):  # fmt: skip
  flags = (deterministic, output_attentions, output_hidden_states, return_dict)
  call = text_arguments(input_ids, attention_mask, token_type_ids, position_ids, None, *flags)
  return call._replace(inputs=call.inputs | {"image": jnp.asarray(pixel_values)})


class FlaxVisionTextDualEncoderModule(OldModule):
  """-> logits_per_image, logits_per_text, text_embeds, image_embeds (of unit length), outputs of the two encoders."""

  FAMILY = ""
  arguments = staticmethod(_arguments)

  @classmethod
  def described(cls, entries):
    image = entries.get("vision_config") or {}
    if image.get("model_type") == "clip":
      entries = {**entries, "vision_config": image["vision_config"] | {"model_type": "clip_vision_model"}}
    text, image = part_of(cls, entries, "text_config", _TEXTS), part_of(cls, entries, "vision_config", IMAGES)
    width, scale = entries.get("projection_dim", 512), entries.get("logit_scale_init_value", 2.6592)
    return {"text": text, "image": image, "projection_dim": width, "logit_scale": scale}

  @classmethod
  def parts(cls, sizes, computing):
    kinds = {"text": _TEXTS, "image": IMAGES}
    of = {name: (each[sizes[name]["model_type"]], sizes[name]["sizes"]) for name, each in kinds.items()}
    text, first = inside("text", *of["text"], computing, "text_model")
    image, second = inside("image", *of["image"], computing, "vision_model")
    width, dtype, init = sizes["projection_dim"], computing["dtype"], initial.normal(0.02)
    image_projection, text_projection = (Dense(width, use_bias=False, dtype=dtype, kernel_init=init) for _ in range(2))
    scale = sizes["logit_scale"]
    model = EncoderPair(image, text, image_projection, text_projection, scale)
    rules = first + second + linear("text_projection", "text_projection", bias=False)
    rules += [*linear("image_projection", "visual_projection", bias=False), Rule("logit_scale", "logit_scale", SAME)]
    return model, types.SimpleNamespace(rules=lambda sizes: rules), ()

  def doing(self, does: str = "") -> Both:
    """The function to run."""
    return Both(_TEXTS[self.sizes["text"]["model_type"]], IMAGES[self.sizes["image"]["model_type"]], does)

  @property
  def running(self):
    return self.doing()

  @property
  def towers(self):
    run = self.doing()
    places = (("text_model_output", "text", run.text), ("vision_model_output", "image", run.image))
    return tuple(
      Tower(place, f"{part}/{tower.part}".rstrip("/"), last=tower.last)
      for place, part, kind in places
      for tower in kind.TOWERS
    )


class FlaxVisionTextDualEncoderModel(FlaxModel):
  """-> logits_per_image, logits_per_text, text_embeds, image_embeds (of unit length), outputs of the two encoders."""

  config_class = ConfigClass("VisionTextDualEncoderConfig")
  module_class = FlaxVisionTextDualEncoderModule

  def __call__(
    self,
    input_ids: Any,
    pixel_values: Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    token_type_ids: Any = None,
    params: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
  ) -> Output:
    """int32 input_ids [texts, length] and float pixel_values [images, channels, height, width]."""
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    texts = (attention_mask, position_ids, token_type_ids)
    return self._apply(params, dropout_rng, input_ids, clip.channels_last(pixel_values), *texts, not train, *flags)

  def get_text_features(
    self,
    input_ids,
    attention_mask=None,
    position_ids=None,
    token_type_ids=None,
    params=None,
    dropout_rng=None,
    train=False,
  ):
    """int32 [batch, length] -> [batch, projection_dim], not of unit length."""
    call = text_arguments(input_ids, attention_mask, token_type_ids, position_ids, None, not train)
    return self._run(params, dropout_rng, call, self.module.doing("text"))

  def get_image_features(self, pixel_values, params=None, dropout_rng=None, train=False):
    """float [batch, channels, height, width] -> [batch, projection_dim], not of unit length."""
    call = Call({"image": clip.channels_last(pixel_values)}, not train)
    return self._run(params, dropout_rng, call, self.module.doing("image"))

  @classmethod
  def from_vision_text_pretrained(
    cls, vision_model_name_or_path: Any = None, text_model_name_or_path: Any = None, *model_args: Any, **kwargs: Any
  ) -> Any:
    """Combines two pretrained encoders; the projections are randomly initialised.

    Args:
      vision_model_name_or_path, text_model_name_or_path: folders or ids.
      **kwargs: vision_NAME and text_NAME for the `from_pretrained` of each, or vision_model and text_model themselves;
        dtype; the rest are entries of the config.
    """
    dtype = kwargs.pop("dtype", jnp.float32)
    options = take_prefixed(kwargs, "vision_", "text_")
    auto = vars(importlib.import_module("zoo.compat.auto"))["FlaxAutoModel"]  # It knows this class.
    models = {}
    for part, source in (("vision_", vision_model_name_or_path), ("text_", text_model_name_or_path)):
      models[part] = options[part].pop("model", None)
      if models[part] is None and source is None:
        raise UserError(f"{part}model_name_or_path is missing. Name a folder or an id, or give {part}model.")
      if models[part] is None:
        models[part] = auto.from_pretrained(source, *model_args, **options[part])
    vision, text = models["vision_"], models["text_"]
    if isinstance(vision, clip.FlaxCLIPModel):  # The image tower of a full CLIP.
      vision, params = vision.config.vision_config, {"vision_model": vision.params["vision_model"]}
      image = entries_of(vision) | {"model_type": "clip_vision_model"}
    else:
      image, params = entries_of(vision.config), vision.params
    entries = {"model_type": "vision-text-dual-encoder", "vision_config": image, "text_config": entries_of(text.config)}
    model = cls(cls.config_class.from_dict(entries | kwargs), dtype=dtype)
    model.params = {**model.params, "vision_model": params, "text_model": text.params}
    return model
