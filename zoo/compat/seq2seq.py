"""Base classes of old encoder-decoder models."""

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
NORMED = tuple(tower._replace(last="norm") for tower in TOWERS)  # For towers with a final norm after pre-norm layers.


def pair_inputs(input_ids, attention_mask, decoder_input_ids, decoder_attention_mask, decoder_position_ids=None):
  """Converts the old inputs of encoder and decoder to the zoo's.

  Raises:
    UserError: there are no decoder inputs.
  """
  if decoder_input_ids is None:
    raise UserError("decoder_input_ids are missing. Pass the tokens of the target so far.")
  positions = None if decoder_position_ids is None else jnp.atleast_2d(jnp.asarray(decoder_position_ids, jnp.int32))
  return {
    "tokens": source(input_ids),
    "valid": mask(attention_mask),
    "decoder_tokens": jnp.asarray(decoder_input_ids, jnp.int32),
    "decoder_valid": mask(decoder_attention_mask),
    "decoder_positions": positions,
  }


def source(inputs: Any) -> jax.Array:
  """Encoder inputs: int32 tokens; audio features, which are floats, are unchanged."""
  inputs = jnp.asarray(inputs)
  return inputs if jnp.issubdtype(inputs.dtype, jnp.floating) else inputs.astype(jnp.int32)


def mask(attention_mask: Any) -> jax.Array | None:
  """Converts a mask of 0 and 1 to bool, True = real."""
  return None if attention_mask is None else jnp.asarray(attention_mask) > 0


def shift_tokens_right(input_ids: Any, pad_token_id: int, decoder_start_token_id: int) -> jax.Array:
  """Decoder inputs for teacher forcing: labels shifted right, with -100 (ignored) replaced by padding.

  >>> shift_tokens_right([[5, 6, -100, -100]], 0, 2).tolist()
  [[2, 5, 6, 0]]
  """
  shifted = shift_right(jnp.asarray(input_ids), decoder_start_token_id)
  return jnp.where(shifted == -100, pad_token_id, shifted)


def encode(model, inputs, train):
  """Runs the encoder -> hidden states."""
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
  """Runs encoder and decoder -> hidden states of both."""
  encoded = encode(model, inputs, train)["last_hidden_state"]
  return {"last_hidden_state": _hidden(model, inputs, encoded, train), "encoder_last_hidden_state": encoded}


def run_logits(model, inputs, train):
  """Runs encoder and decoder -> next-token logits."""
  out = run_states(model, inputs, train)
  return {"logits": model.to_logits(out.pop("last_hidden_state")), **out}


def decode_states(model, inputs, train):
  """Runs the decoder on encoder states -> hidden states."""
  return {"last_hidden_state": _hidden(model, inputs, inputs["encoded"], train)}


def decode_logits(model, inputs, train):
  """Runs the decoder on encoder states -> next-token logits."""
  return {"logits": model.to_logits(_hidden(model, inputs, inputs["encoded"], train))}


class PairModule(OldModule):
  """Base class of encoder-decoder modules; `HEAD` "lm" returns logits."""

  TOWERS = TOWERS

  def alone(self) -> tuple[Tower, ...]:
    """The tower of hidden states if only one part runs."""
    return tuple(tower._replace(prefix="") for tower in self.towers)

  def encoding(self) -> Callable:
    """The function that `encode` runs."""
    return encode

  def decoding(self) -> Callable:
    """The function that `decode` runs."""
    return decode_logits if self.HEAD == "lm" else decode_states


class PairModel(FlaxModel):
  """Base class of encoder-decoder models: `encode`, `init_cache` and `decode` are the parts of a call."""

  SHOWS_SOURCE: ClassVar[bool] = True  # Whether attention_mask applies to the encoder.

  def init_cache(self, batch_size: int, max_length: int, encoder_outputs: Any) -> dict[str, Any]:
    """An empty key-value cache for max_length tokens, to be passed to `decode` as past_key_values."""
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
    """Runs the encoder -> last_hidden_state [batch, length, dim], for encoder_outputs of `decode`."""
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
    """Runs the decoder -> its outputs as in a call; with past_key_values of `init_cache` it uses the cache."""
    masks = (encoder_attention_mask if self.SHOWS_SOURCE else None, decoder_attention_mask)
    inputs = decoder_inputs(decoder_input_ids, encoder_outputs, *masks, decoder_position_ids)
    flags = self._flags(output_attentions, output_hidden_states, return_dict)
    call = Call(inputs, not train, *flags, run=self.module.decoding(), towers=self.module.alone())
    return self._in_cache(past_key_values, params, dropout_rng, call)

  def _encoder_inputs(self, input_ids: Any, attention_mask: Any, position_ids: Any) -> dict[str, Any]:
    """The encoder inputs in the zoo's format."""
    in_order(position_ids)
    return token_inputs(input_ids, attention_mask, None)


def decoder_inputs(decoder_input_ids, encoder_outputs, encoder_attention_mask, decoder_attention_mask, positions=None):
  """The inputs of `decode` in the zoo's format."""
  encoded = jnp.asarray(encoder_outputs[0])
  nothing = jnp.zeros(encoded.shape[:2])
  inputs = pair_inputs(nothing, encoder_attention_mask, decoder_input_ids, decoder_attention_mask, positions)
  return inputs | {"encoded": encoded}


def in_order(position_ids: Any) -> None:
  """UserError for encoder positions that do not count from 0."""
  if position_ids is None or isinstance(position_ids, jnp.ndarray) and not hasattr(position_ids, "__array__"):
    return
  try:
    places = np.atleast_2d(np.asarray(position_ids))
  except Exception:  # Traced values are unknown.
    return
  if (places != np.arange(places.shape[-1])).any():
    raise UserError("position_ids do not count from 0, and this encoder has no others. Leave them out.")
