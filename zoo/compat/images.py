"""The old classes of ViT and DINOv2: transformers 4, modeling_flax_vit.py and modeling_flax_dinov2.py."""

from typing import Any

import jax.numpy as jnp

from zoo.compat.clip import channels_last, image_shape
from zoo.compat.config_classes import ConfigClass
from zoo.compat.model import FlaxModel, with_head
from zoo.compat.module import Call, OldModule
from zoo.compat.outputs import Output


def _arguments(pixel_values, deterministic=True, output_attentions=False, output_hidden_states=False, return_dict=True):
  inputs = {"image": jnp.asarray(pixel_values)}
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _run(model, inputs, train):
  out = model(inputs["image"], train=train)
  return {"last_hidden_state": out["hidden"], "pooler_output": out["pooled"]}


def _run_logits(model, inputs, train):
  return {"logits": model(inputs["image"], train=train)["logits"]}


class FlaxViTModule(OldModule):
  """-> last_hidden_state [batch, 1 + patches, dim] (normed), pooler_output [batch, dim]."""

  FAMILY, POOLER, SILENT = "vit", "pooler", ("tie_word_embeddings",)
  arguments, run = staticmethod(_arguments), staticmethod(_run)

  @classmethod
  def adjusted(cls, sizes, entries):
    return sizes | {"pooler": sizes["num_classes"] is None}


class FlaxDinov2Module(OldModule):
  """-> last_hidden_state [batch, 1 + patches, dim] (normed), pooler_output [batch, dim]."""

  FAMILY, SILENT = "dinov2", ("tie_word_embeddings",)
  arguments, run = staticmethod(_arguments), staticmethod(_run)


class FlaxViTPreTrainedModel(FlaxModel):
  """ViT's base class: the call signature of its models."""

  config_class, base_model_prefix, module_class = ConfigClass("ViTConfig"), "vit", FlaxViTModule
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


class FlaxDinov2PreTrainedModel(FlaxViTPreTrainedModel):
  """DINOv2's base class; images may be of any size."""

  config_class, base_model_prefix, module_class = ConfigClass("Dinov2Config"), "dinov2", FlaxDinov2Module


class FlaxViTModel(FlaxViTPreTrainedModel):
  """-> last_hidden_state [batch, 1 + patches, dim] (normed), pooler_output [batch, dim]."""


class FlaxDinov2Model(FlaxDinov2PreTrainedModel):
  """-> last_hidden_state [batch, 1 + patches, dim] (normed), pooler_output [batch, dim], the class token."""


_CLASSES: dict[str, Any] = dict(run=_run_logits, HEAD="classify", POOLER=None)
FlaxViTForImageClassification, FlaxViTForImageClassificationModule = with_head(
  FlaxViTModule,
  FlaxViTPreTrainedModel,
  "FlaxViTForImageClassification",
  "-> logits [batch, num_labels].",
  **_CLASSES,
)
FlaxDinov2ForImageClassification, FlaxDinov2ForImageClassificationModule = with_head(
  FlaxDinov2Module,
  FlaxDinov2PreTrainedModel,
  "FlaxDinov2ForImageClassification",
  "-> logits [batch, num_labels].",
  **_CLASSES,
)
