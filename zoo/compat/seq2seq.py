"""What old models have in common that read one text and write another."""

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.compat.core import Tower
from zoo.compat.model import FlaxModel
from zoo.compat.module import Call, OldModule, token_inputs
from zoo.compat.outputs import Output
from zoo.errors import UserError
from zoo.layers.embeddings import shift_right
from zoo.layers.sequence import SequenceInfo

TOWERS = (Tower(part="encoder", prefix="encoder_"), Tower(part="decoder", prefix="decoder_", cross=True))
NORMED = tuple(tower._replace(last="norm") for tower in TOWERS)  # Where both end in a norm that their layers lack.


def pair_inputs(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, decoder_position_ids=None):
  """The old arrays of two texts as the zoo has them.

  Raises:
    UserError: there is no second text.
  """
  if decoder_input_ids is None:
    raise UserError("decoder_input_ids are missing. Give them beside the first text: what is to be continued.")
  positions = None if decoder_position_ids is None else jnp.atleast_2d(jnp.asarray(decoder_position_ids, jnp.int32))
  return {
    "tokens": source(input_ids),
    "valid": mask(attention_mask),
    "decoder_tokens": jnp.asarray(decoder_input_ids, jnp.int32),
    "decoder_valid": mask(decoder_attention_mask),
    "decoder_positions": positions,
  }


def source(inputs: Any) -> jax.Array:
  """int32 tokens; of sounds, which are floats, as they are."""
  inputs = jnp.asarray(inputs)
  return inputs if jnp.issubdtype(inputs.dtype, jnp.floating) else inputs.astype(jnp.int32)


def mask(given: Any) -> jax.Array | None:
  """bool, True = real."""
  return None if given is None else jnp.asarray(given) > 0


def shift_tokens_right(input_ids: Any, pad_token_id: int, decoder_start_token_id: int) -> jax.Array:
  """What a decoder is given that is to say `input_ids`, of labels that may hold -100 where nothing is asked for.

  >>> shift_tokens_right([[5, 6, -100, -100]], 0, 2).tolist()
  [[2, 5, 6, 0]]
  """
  shifted = shift_right(jnp.asarray(input_ids), decoder_start_token_id)
  return jnp.where(shifted == -100, pad_token_id, shifted)


def encode(model, inputs, train):
  """The first text's hidden states."""
  return {"last_hidden_state": model.encode(inputs["tokens"], valid=inputs["valid"], train=train)}


def _hidden(model, inputs, encoded, train):
  return model.decode_hidden(
    inputs["decoder_tokens"],
    encoded,
    info=SequenceInfo(inputs["decoder_valid"], inputs["decoder_positions"]),
    context_info=SequenceInfo(inputs["valid"]),
    train=train,
  )


def run_states(model, inputs, train):
  """Hidden states of both texts."""
  encoded = encode(model, inputs, train)["last_hidden_state"]
  return {"last_hidden_state": _hidden(model, inputs, encoded, train), "encoder_last_hidden_state": encoded}


def run_logits(model, inputs, train):
  """Logits of the next token."""
  out = run_states(model, inputs, train)
  return {"logits": model.to_logits(out.pop("last_hidden_state")), **out}


def decode_states(model, inputs, train):
  """The second text's hidden states, given the first's."""
  return {"last_hidden_state": _hidden(model, inputs, inputs["encoded"], train)}


def decode_logits(model, inputs, train):
  """Logits of the next token, given the first text's hidden states."""
  return {"logits": model.to_logits(_hidden(model, inputs, inputs["encoded"], train))}


class PairModule(OldModule):
  """A module of two texts; `HEAD` "lm" gives logits."""

  TOWERS = TOWERS

  def alone(self) -> tuple[Tower, ...]:
    """What hidden states of one text are read from."""
    return tuple(tower._replace(prefix="") for tower in self.towers)

  def encoding(self) -> Callable:
    """What `encode` runs."""
    return encode

  def decoding(self) -> Callable:
    """What `decode` runs."""
    return decode_logits if self.HEAD == "lm" else decode_states


class PairModel(FlaxModel):
  """A model of two texts: `encode`, `init_cache` and `decode` do by parts what a call does."""

  SHOWS_SOURCE: ClassVar[bool] = True  # Whether attention_mask hides parts of what is encoded.

  def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any) -> dict[str, Any]:
    """An empty cache, which `decode` is given as past_key_values, for answers of max_length tokens."""
    encoded = jnp.asarray(encoder_outputs[0])
    inputs = pair_inputs(jnp.zeros(encoded.shape[:2]), None, jnp.zeros((batch_size, max_length)), None)
    return self.module.core.empty_cache(self.module.decoding(), inputs | {"encoded": encoded})

  def encode(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    position_ids: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    dropout_rng: Any = None,
  ) -> Output:
    """-> last_hidden_state [batch, length, dim], what `decode` is given as encoder_outputs."""
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    inputs = self._encoder_inputs(input_ids, attention_mask, position_ids)
    return self._run(
      params, dropout_rng, Call(inputs, not train, *flags, towers=self.module.alone()), self.module.encoding()
    )

  def decode(
    self,
    decoder_input_ids: Any,
    encoder_outputs: Any,
    encoder_attention_mask: Any = None,
    decoder_attention_mask: Any = None,
    decoder_position_ids: Any = None,
    past_key_values: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    dropout_rng: Any = None,
  ) -> Output:
    """What a call returns of the second text; with past_key_values, of `init_cache`, it goes on from there."""
    masks = (encoder_attention_mask if self.SHOWS_SOURCE else None, decoder_attention_mask)
    inputs = decoder_inputs(decoder_input_ids, encoder_outputs, *masks, decoder_position_ids)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    call = Call(inputs, not train, *flags, run=self.module.decoding(), towers=self.module.alone())
    return self._in_cache(past_key_values, params, dropout_rng, call)

  def _encoder_inputs(self, input_ids: Any, attention_mask: Any, position_ids: Any) -> dict[str, Any]:
    """What is encoded, as the zoo has it."""
    in_order(position_ids)
    return token_inputs(input_ids, attention_mask, None)


def decoder_inputs(decoder_input_ids, encoder_outputs, encoder_attention_mask, decoder_attention_mask, positions=None):
  """What `decode` is given, as the zoo has it."""
  encoded = jnp.asarray(encoder_outputs[0])
  nothing = jnp.zeros(encoded.shape[:2])
  inputs = pair_inputs(nothing, encoder_attention_mask, decoder_input_ids, decoder_attention_mask, positions)
  return inputs | {"encoded": encoded}


def in_order(position_ids: Any) -> None:
  """Refuses positions of what is encoded that do not count from 0."""
  if position_ids is None or isinstance(position_ids, jnp.ndarray) and not hasattr(position_ids, "__array__"):
    return
  try:
    places = np.atleast_2d(np.asarray(position_ids))
  except Exception:  # Traced: nobody knows them.
    return
  if (places != np.arange(places.shape[-1])).any():
    raise UserError("position_ids do not count from 0, and what is encoded has no others here. Leave them out.")
