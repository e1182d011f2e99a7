"""Old modules of a separately trained encoder and decoder: transformers 4, modeling_flax_encoder_decoder.py."""

import types
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from zoo.compat import bart, bert, clip, decoders, distilbert, images, roberta, seq2seq
from zoo.compat.core import Tower, renamed
from zoo.compat.module import Call, section, token_inputs, understood
from zoo.convert.rules.layouts import linear
from zoo.errors import UserError, shown
from zoo.layers import initial
from zoo.layers.dense import Dense
from zoo.layers.sequence import SequenceInfo
from zoo.models.composed import EncoderWithDecoder
from zoo.models.cross_decoders import RoBERTaDecoder

# model_type -> the encoder module, and the causal decoder module.
TEXTS: dict[str, Any] = {
  "bert": bert.FlaxBertModule,
  "distilbert": distilbert.FlaxDistilBertModule,
  "roberta": roberta.FlaxRobertaModule,
  "xlm-roberta": roberta.FlaxXLMRobertaModule,
}
IMAGES: dict[str, Any] = {
  "clip_vision_model": clip.FlaxCLIPVisionModule,
  "dinov2": images.FlaxDinov2Module,
  "vit": images.FlaxViTModule,
}
WRITERS: dict[str, Any] = {
  "bart": bart.FlaxBartForCausalLMModule,
  "bert": vars(bert)["FlaxBertForCausalLMModule"],
  "gpt2": decoders.FlaxGPT2LMHeadModule,
  "roberta": vars(roberta)["FlaxRobertaForCausalLMModule"],
  "xlm-roberta": vars(roberta)["FlaxXLMRobertaForCausalLMModule"],
}


def part_of(cls: Any, entries: Mapping[str, Any], name: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
  """{"model_type", "sizes"} of the encoder or decoder, from its section of the config.

  Raises:
    UserError: the zoo does not have such a model, or its section is missing.
  """
  part = entries.get(name)
  if not isinstance(part, Mapping):
    raise UserError(f"config: {name} is {shown(part)}. It must be the config of a model.")
  kind = str(part.get("model_type"))
  if kind not in kinds:
    has = ", ".join(kinds)
    raise UserError(f"config: {name}: {cls.__name__} has no model_type {shown(kind)}. It has: {has}.")
  where = f"config: {name}"
  return {"model_type": kind, "sizes": understood(kinds[kind], section(kinds[kind], part, where), where)}


def inside(name: str, kind: Any, sizes: Mapping[str, Any], computing: Mapping[str, Any], front: str = "") -> tuple:
  """A part, with its rules prefixed for a part called `name`; `front` is its old name, `name` if it is "" ."""
  model, table, names = kind.parts(sizes, dict(computing))
  front = front or name
  return model, [
    rule._replace(ours=f"{name}/{rule.ours}", theirs=f"{front}.{renamed(rule.theirs, names)}")
    for rule in table.rules(sizes)
  ]


class Pair(NamedTuple):
  """Runs encoder and decoder: a function of the zoo's model, inputs and train, equal for equal parts.

  encoder, decoder: kinds of modules. does: "encode", "decode", or "" for both.
  """

  encoder: Any
  decoder: Any
  does: str = ""

  def __call__(self, model, inputs, train):
    out = {}
    encoded = inputs.get("encoded")
    if self.does != "decode":
      read = {name: inputs[name] for name in ("tokens", "valid", "positions", "image") if name in inputs}
      encoded = self.encoder.run(model.encoder, read, train)["last_hidden_state"]
      out = {"last_hidden_state": encoded} if self.does else {"encoder_last_hidden_state": encoded}
    if self.does == "encode":
      return out
    positions = inputs["decoder_positions"]
    if positions is not None and isinstance(model.decoder, RoBERTaDecoder):
      positions -= model.decoder.positions.offset
    infos = dict(info=SequenceInfo(inputs["decoder_valid"], positions), context_info=SequenceInfo(inputs["valid"]))
    x = model.decode_hidden(inputs["decoder_tokens"], encoded, **infos, train=train)
    return {"logits": model.to_logits(x), **out}


def _arguments(
  input_ids, attention_mask=None, decoder_input_ids=None, decoder_attention_mask=None, position_ids=None,
  decoder_position_ids=None, output_attentions=False, output_hidden_states=False, return_dict=True, deterministic=True,
):  # fmt: skip
  masks = (attention_mask, decoder_attention_mask)
  inputs = seq2seq.pair_inputs(input_ids, masks[0], decoder_input_ids, masks[1], decoder_position_ids)
  inputs |= token_inputs(input_ids, attention_mask, position_ids)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


class FlaxEncoderDecoderModule(seq2seq.PairModule):
  """-> logits [batch, decoder length, vocab_size], encoder_last_hidden_state [batch, length, dim of the encoder]."""

  FAMILY = ""
  READERS: ClassVar[Mapping[str, Any]] = TEXTS
  arguments = staticmethod(_arguments)

  @classmethod
  def described(cls, entries):
    decoder = part_of(cls, entries, "decoder", WRITERS)
    if not decoder["sizes"]["crosses"]:
      raise UserError("config: decoder: add_cross_attention must be True, or it cannot see what the encoder has read.")
    sections = [entries, entries["decoder"]]
    starts = [part.get(name) for name in ("decoder_start_token_id", "bos_token_id") for part in sections]
    start = next((token for token in starts if token is not None), None)
    encoder = part_of(cls, entries, "encoder", cls.READERS)
    return {"encoder": encoder, "decoder": decoder, "start": start}

  @classmethod
  def parts(cls, sizes, computing):
    encoder, first = inside("encoder", *cls.of("encoder", sizes), computing)
    decoder, second = inside("decoder", *cls.of("decoder", sizes), computing)
    width, theirs = sizes["decoder"]["sizes"]["dim"], sizes["encoder"]["sizes"]["dim"]
    dense = Dense(width, dtype=computing["dtype"], kernel_init=initial.normal(0.02)) if width != theirs else None
    start = 0 if sizes["start"] is None else sizes["start"]
    model = EncoderWithDecoder(encoder=encoder, decoder=decoder, project=dense, start_token=start)
    rules = first + second + ([] if dense is None else linear("project", "enc_to_dec_proj"))
    return model, types.SimpleNamespace(rules=lambda sizes: rules), ()

  @classmethod
  def of(cls, name: str, sizes: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The kind of a part, and its sizes."""
    kinds = cls.READERS if name == "encoder" else WRITERS
    return kinds[sizes[name]["model_type"]], sizes[name]["sizes"]

  @property
  def kinds(self) -> tuple[Any, Any]:
    """The kinds of both parts."""
    return type(self).of("encoder", self.sizes)[0], type(self).of("decoder", self.sizes)[0]

  @property
  def towers(self) -> tuple[Tower, ...]:
    return tuple(
      tower._replace(part=f"{name}/{tower.part}".rstrip("/"), prefix=f"{name}_")
      for name, kind in zip(("encoder", "decoder"), self.kinds)
      for tower in kind.TOWERS
    )

  @property
  def running(self):
    return Pair(*self.kinds)

  def encoding(self):
    return Pair(*self.kinds, "encode")

  def decoding(self):
    return Pair(*self.kinds, "decode")


def _image_arguments(
  pixel_values, decoder_input_ids=None, decoder_attention_mask=None, decoder_position_ids=None,
  output_attentions=False, output_hidden_states=False, return_dict=True, deterministic=True,
):  # fmt: skip
  rest = (decoder_input_ids, decoder_attention_mask, decoder_position_ids)
  inputs = seq2seq.pair_inputs(pixel_values, None, *rest)
  inputs["image"] = inputs.pop("tokens")
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


class FlaxVisionEncoderDecoderModule(FlaxEncoderDecoderModule):
  """-> logits [batch, decoder length, vocab_size], encoder_last_hidden_state; images have their channels last."""

  READERS: ClassVar[Mapping[str, Any]] = IMAGES
  arguments = staticmethod(_image_arguments)
