"""Old causal language models with optional cross-attention to `encoder_hidden_states`."""

import types
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from zoo.compat.core import Tower
from zoo.compat.generating import Generates
from zoo.compat.module import Call, OldModule, token_inputs
from zoo.compat.outputs import Output
from zoo.convert.rules.layouts import Rule
from zoo.errors import UserError
from zoo.hub import tables
from zoo.layers.sequence import SequenceInfo
from zoo.models.cross_decoders import RoBERTaDecoder, cross_decoder

_FLAGS = ("causal", "crosses")


def run_logits(model, inputs, train):
  """Runs the decoder -> next-token logits."""
  return {"logits": model.to_logits(hidden(model, inputs, train))}


def hidden(model, inputs, train):
  """Hidden states before the logits. Old positions of a RoBERTa count from pad_token_id + 1."""
  positions = inputs["positions"]
  if positions is not None and isinstance(model, RoBERTaDecoder):
    positions -= model.positions.offset
  infos = dict(info=SequenceInfo(inputs["valid"], positions), context_info=SequenceInfo(inputs.get("context_valid")))
  segments = inputs.get("segments")
  return model.decode_hidden(inputs["tokens"], inputs.get("context"), **infos, segments=segments, train=train)


def decoder_inputs(input_ids, attention_mask, position_ids, context, context_mask, **more):
  """Converts the old inputs of decoder and context to the zoo's."""
  inputs = token_inputs(input_ids, attention_mask, position_ids)
  inputs["context"] = None if context is None else jnp.asarray(context)
  inputs["context_valid"] = None if context_mask is None else jnp.asarray(context_mask) > 0
  return inputs | more


class CausalModule(OldModule):
  """Mixin for modules with a decoder of `zoo.models.cross_decoders`; precedes the family's module in the bases."""

  TOWERS = (Tower(cross=True),)
  CLASSES: ClassVar[tuple[str, ...]] = ()  # Torch's names.
  run = staticmethod(run_logits)

  @classmethod
  def adjusted(cls, sizes, entries):
    crosses = bool(entries.get("add_cross_attention"))
    return super().adjusted(sizes, entries) | {"causal": bool(entries.get("is_decoder")), "crosses": crosses}

  @classmethod
  def parts(cls, sizes, computing):
    model, table, names = super().parts({name: x for name, x in sizes.items() if name not in _FLAGS}, computing)
    decoder = cross_decoder(model, causal=sizes["causal"], crosses=sizes["crosses"])
    return decoder, cls.decoder_table(table, sizes["crosses"]), names

  @classmethod
  def decoder_table(cls, table: Any, crosses: bool) -> types.ModuleType:
    """The conversion table of the model, with rules of cross-attention."""
    heads = {**table.HEADS, cls.HEAD: cls.CLASSES}

    def rules(sizes):
      every = range(sizes["depth"])
      return table.rules(sizes) + [rule for i in every if crosses for rule in cls.cross(f"stack/layer_{i}", i, sizes)]

    return like(table, rules=rules, HEADS=heads)

  @classmethod
  def cross(cls, ours: str, layer: int, sizes: Mapping[str, Any]) -> list[Rule]:
    """The rules of cross-attention in a layer."""
    raise NotImplementedError


def like(table: Any, **changes: Any) -> types.ModuleType:
  """A copy of a table of `zoo.convert` with some attributes replaced."""
  other = types.ModuleType(table.__name__)
  vars(other).update(vars(table), **changes)
  return other


class CausalModel(Generates):
  """An old model that is causal if its config has is_decoder, with a key-value cache."""

  def init_cache(self, batch_size: int, max_length: int) -> dict[str, Any]:
    """An empty key-value cache for max_length tokens, to be passed as past_key_values.

    Raises:
      UserError: the model is not causal.
    """
    if not self._is_ours():
      shapes = self._example((batch_size, max_length))
      return self.module.init(jax.random.PRNGKey(0), *shapes, init_cache=True)["cache"]
    self._check_causal()
    inputs = decoder_inputs(jnp.zeros((batch_size, max_length), jnp.int32), None, None, None, None)
    return self.module.core.empty_cache(type(self.module).run, inputs)

  def generate(self, *args: Any, **kwargs: Any) -> Output:
    """As for every model, without cross-attention."""
    if self._is_ours():
      self._check_causal()
    return super().generate(*args, **kwargs)

  def _check_causal(self):
    if not self.module.sizes["causal"]:
      raise UserError(
        f"{type(self).__name__}: config.is_decoder is not True, so tokens see what comes. Set it to True."
      )


def _text_arguments(
  input_ids, attention_mask=None, position_ids=None, token_type_ids=None, head_mask=None, encoder_hidden_states=None,
  encoder_attention_mask=None, init_cache=False, deterministic=True,
  output_attentions=False, output_hidden_states=False, return_dict=True,
):  # fmt: skip
  segments = None if token_type_ids is None else jnp.asarray(token_type_ids, jnp.int32)
  heads = {} if head_mask is None else {"head_mask": jnp.asarray(head_mask, jnp.float32)}
  others = (encoder_hidden_states, encoder_attention_mask)
  inputs = decoder_inputs(input_ids, attention_mask, position_ids, *others, segments=segments, **heads)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


class CausalTextModule(CausalModule):
  """BERT and RoBERTa, causal if the config has is_decoder."""

  HEAD, POOLER = "mlm", None
  SILENT = ("is_decoder", "add_cross_attention", "cross_attention_hidden_size")

  arguments = staticmethod(_text_arguments)

  @classmethod
  def cross(cls, ours, layer, sizes):
    return tables.of_family(cls.FAMILY).cross(ours, layer, sizes["dim"])


class CausalTextModel(CausalModel):
  """Mixin that precedes the base class of BERT or RoBERTa in the bases."""

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

    encoder_hidden_states are [batch, source length, dim] and encoder_attention_mask [batch, source length]. With
    past_key_values, from `init_cache` or the previous call, attention_mask covers the full length of the cache.
    """
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    named = self._named(flags, train)
    if past_key_values and position_ids is None and not self.module_class.LEARNS_PAD:
      raise UserError("past_key_values need position_ids, which count from pad_token_id + 1. Pass both.")
    ids, mask, positions = self._tokens(input_ids, attention_mask, position_ids)
    texts = (ids, mask, positions, token_type_ids, head_mask, encoder_hidden_states, encoder_attention_mask)
    return self._in_cache(past_key_values, params, dropout_rng, *texts, **named)


def causal_text(module, model, front, *classes):
  """Builds a family's old class and module, {name: class}: `front`ForCausalLM; classes: torch's names."""
  name, where = f"{front}ForCausalLM", {"__module__": model.__module__}
  inside = {**where, "__doc__": "-> logits [batch, length, vocab_size].", "CLASSES": classes}
  module_class = type(f"{name}Module", (CausalTextModule, module), {**inside, "run": staticmethod(run_logits)})
  doc = "-> logits [batch, length, vocab_size]; `generate` goes on with a text."
  return {
    module_class.__name__: module_class,
    name: type(name, (CausalTextModel, model), {**where, "__doc__": doc, "module_class": module_class}),
  }
