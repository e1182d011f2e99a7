"""The old classes of GPT-2, Llama, Mistral and Gemma: transformers 4, src/transformers/models/*/modeling_flax_*.py."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from zoo.compat import causal
from zoo.compat.config_classes import ConfigClass
from zoo.compat.core import Tower
from zoo.compat.generating import Generates
from zoo.compat.model import FlaxModel, outputs
from zoo.compat.module import Call, OldModule, refuse, token_inputs
from zoo.compat.outputs import Output
from zoo.convert import gpt


def _arguments(
  input_ids, attention_mask=None, position_ids=None, deterministic=True, init_cache=False, output_attentions=False,
  output_hidden_states=False, return_dict=True,
):  # fmt: skip
  inputs = token_inputs(input_ids, attention_mask, position_ids)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _gpt2_arguments(
  input_ids, attention_mask=None, position_ids=None, encoder_hidden_states=None, encoder_attention_mask=None,
  deterministic=True, init_cache=False, output_attentions=False, output_hidden_states=False, return_dict=True,
):  # fmt: skip
  refuse(encoder_hidden_states=encoder_hidden_states, encoder_attention_mask=encoder_attention_mask)
  flags = (output_attentions, output_hidden_states, return_dict)
  return _arguments(input_ids, attention_mask, position_ids, deterministic, init_cache, *flags)


def _called(name):
  """Runs a trunk or a model -> {name: hidden states or logits}."""

  def run(model, inputs, train):
    return {name: model(inputs["tokens"], valid=inputs["valid"], positions=inputs["positions"], train=train)}

  return staticmethod(run)


class FlaxLlamaModule(OldModule):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1]."""

  FAMILY, TYPES = "llama", ("llama",)
  TOWERS = (Tower(last="norm"),)
  arguments, run = staticmethod(_arguments), staticmethod(outputs(last_hidden_state="hidden"))


class FlaxLlamaForCausalLMModule(FlaxLlamaModule):
  """-> logits [batch, length, vocab_size]."""

  HEAD, run = "lm", _called("logits")


class FlaxMistralModule(FlaxLlamaModule):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1].

  A window of `sliding_window` tokens includes the token itself, as in torch; transformers 4's Flax had one more.
  """

  TYPES = ("mistral",)


class FlaxMistralForCausalLMModule(FlaxLlamaForCausalLMModule):
  """-> logits [batch, length, vocab_size]."""

  TYPES = ("mistral",)


class FlaxGemmaModule(FlaxLlamaModule):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1]."""

  FAMILY, TYPES = "gemma", ("gemma",)


class FlaxGemmaForCausalLMModule(FlaxLlamaForCausalLMModule):
  """-> logits [batch, length, vocab_size]."""

  FAMILY, TYPES = "gemma", ("gemma",)


class FlaxGPT2Module(FlaxLlamaModule):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1]."""

  FAMILY, TYPES, HEAD, TRUNK = "gpt", ("gpt2",), "lm", True
  NAMES: ClassVar = ((r"^transformer\.", ""),)
  arguments, run = staticmethod(_gpt2_arguments), _called("last_hidden_state")


def _crossing_arguments(
  input_ids, attention_mask=None, position_ids=None, encoder_hidden_states=None, encoder_attention_mask=None,
  deterministic=True, init_cache=False, output_attentions=False, output_hidden_states=False, return_dict=True,
):  # fmt: skip
  read = (encoder_hidden_states, encoder_attention_mask)
  inputs = causal.decoder_inputs(input_ids, attention_mask, position_ids, *read)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


class FlaxGPT2LMHeadModule(causal.CausalModule, FlaxGPT2Module):
  """-> logits [batch, length, vocab_size]; with optional cross-attention."""

  NAMES, TRUNK, TOWERS = (), False, (Tower(last="norm", cross=True),)
  SILENT = ("add_cross_attention", "is_decoder", "cross_attention_hidden_size")
  CLASSES = ("GPT2LMHeadModel", "GPT2Model")
  arguments, run = staticmethod(_crossing_arguments), staticmethod(causal.run_logits)

  @classmethod
  def adjusted(cls, sizes, entries):
    return super().adjusted(sizes, entries) | {"causal": True}

  @classmethod
  def cross(cls, ours, layer, sizes):
    return gpt.cross(ours, layer, sizes["dim"])


class _Decoder(FlaxModel):
  def init_cache(self, batch_size: int, max_length: int) -> dict[str, Any]:
    """An empty key-value cache for max_length tokens, to be passed as past_key_values."""
    if not self._is_ours():
      shapes = self._example((batch_size, max_length))
      return self.module.init(jax.random.PRNGKey(0), *shapes, init_cache=True)["cache"]
    inputs = token_inputs(jnp.zeros((batch_size, max_length), jnp.int32), None, None)
    return self.module.core.empty_cache(type(self.module).run, inputs)

  def _example(self, input_shape):
    return self._tokens(jnp.zeros(input_shape, jnp.int32))


class FlaxLlamaPreTrainedModel(_Decoder):
  """The base class of decoder-only models."""

  config_class, base_model_prefix, module_class = ConfigClass("LlamaConfig"), "model", FlaxLlamaModule

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    params: Any = None,
    past_key_values: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
  ) -> Output:
    """int32 input_ids [batch, length], attention_mask of 0 and 1, position_ids counted from 0.

    With past_key_values, from `init_cache` or the previous call, attention_mask is [batch, max_length], the full length
    of the cache, and the output has the updated cache.
    """
    tokens = self._tokens(input_ids, attention_mask, position_ids)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    return self._in_cache(past_key_values, params, dropout_rng, *tokens, not train, False, *flags)


class FlaxMistralPreTrainedModel(FlaxLlamaPreTrainedModel):
  """Mistral's base class."""

  config_class, module_class = ConfigClass("MistralConfig"), FlaxMistralModule


class FlaxGemmaPreTrainedModel(FlaxLlamaPreTrainedModel):
  """Gemma's base class."""

  config_class, module_class = ConfigClass("GemmaConfig"), FlaxGemmaModule


class FlaxGPT2PreTrainedModel(_Decoder):
  """GPT-2's base class; cross-attention only with a head."""

  config_class, base_model_prefix, module_class = ConfigClass("GPT2Config"), "transformer", FlaxGPT2Module

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None,
    params: Any = None,
    past_key_values: Any = None,
    dropout_rng: Any = None,
    train: bool = False,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
  ) -> Output:
    """As Llama's; with a head also encoder_hidden_states, float [batch, source length, n_embd], and their mask."""
    tokens = self._tokens(input_ids, attention_mask, position_ids)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    encoder = (encoder_hidden_states, encoder_attention_mask)
    return self._in_cache(past_key_values, params, dropout_rng, *tokens, *encoder, not train, False, *flags)


class FlaxLlamaModel(FlaxLlamaPreTrainedModel):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1]."""


class FlaxMistralModel(FlaxMistralPreTrainedModel):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1]."""


class FlaxGemmaModel(FlaxGemmaPreTrainedModel):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1]."""


class FlaxGPT2Model(FlaxGPT2PreTrainedModel):
  """-> last_hidden_state [batch, length, dim] after the final norm, as is hidden_states[-1]."""


class FlaxLlamaForCausalLM(Generates, FlaxLlamaPreTrainedModel):
  """-> logits [batch, length, vocab_size]; `generate` continues texts."""

  module_class = FlaxLlamaForCausalLMModule


class FlaxMistralForCausalLM(Generates, FlaxMistralPreTrainedModel):
  """-> logits [batch, length, vocab_size]; `generate` continues texts."""

  module_class = FlaxMistralForCausalLMModule


class FlaxGemmaForCausalLM(Generates, FlaxGemmaPreTrainedModel):
  """-> logits [batch, length, vocab_size]; `generate` continues texts."""

  module_class = FlaxGemmaForCausalLMModule


class FlaxGPT2LMHeadModel(Generates, FlaxGPT2PreTrainedModel):
  """-> logits [batch, length, vocab_size]; `generate` continues texts."""

  module_class = FlaxGPT2LMHeadModule
