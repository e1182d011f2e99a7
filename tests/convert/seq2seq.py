"""Cases of models that read one text and write another, with padding in both."""

import jax.numpy as jnp

from tests.convert.parity import Case, to_torch

LENGTH, DECODER_LENGTH, EOS_AT = 19, 11, 13
LM = {"logits": (lambda out: out["logits"], lambda out: out.logits)}
ENCODED = {"encoded": (lambda out: out["encoded"], lambda out: out.encoder_last_hidden_state)}
BARE = {"hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state)} | ENCODED
ENCODER = {"encoded": (lambda out: out["encoded"], lambda out: out.last_hidden_state)}
SPAN = {
  name: (lambda out, n=name: out[n], lambda out, n=name: getattr(out, f"{n}_logits")) for name in ("start", "end")
}


def case(cls, config_cls, name, config, outputs, *, encoder=False, decoder_tokens=True, eos=1, **more):
  """A case of this class.

  Args:
    cls, config_cls, name, config, outputs, more: of Case.
    encoder: whether there is no decoder.
    decoder_tokens: whether the decoder is given tokens of its own.
    eos: the token at which a text is read, placed in the middle.
  """

  def inputs(rng):
    most = min(config["vocab_size"], config.get("decoder_vocab_size") or config["vocab_size"])
    arrays = {
      "tokens": rng.integers(4, config["vocab_size"], (2, LENGTH)),
      "valid": rng.random((2, LENGTH)) < 0.7,
      "decoder_tokens": rng.integers(4, most, (2, DECODER_LENGTH)),
      "decoder_valid": rng.random((2, DECODER_LENGTH)) < 0.7,
    }
    arrays["tokens"][:, EOS_AT] = eos
    arrays["valid"][:, 0] = arrays["decoder_valid"][:, 0] = True
    return arrays

  def ours(rng):
    arrays = {name: jnp.asarray(value) for name, value in inputs(rng).items()}
    if decoder_tokens:
      return (arrays.pop("tokens"), arrays.pop("decoder_tokens")), arrays
    return (arrays["tokens"],), {"valid": arrays["valid"]}

  def theirs(rng):
    arrays = {name: to_torch(value) for name, value in inputs(rng).items()}
    arguments = {"input_ids": arrays["tokens"], "attention_mask": arrays["valid"]}
    if decoder_tokens:
      arguments |= {"decoder_input_ids": arrays["decoder_tokens"], "decoder_attention_mask": arrays["decoder_valid"]}
    return arguments

  layers = {"encoder": "" if encoder else "encoder_"} | ({} if encoder else {"decoder": "decoder_"})
  hidden = [(rf"{tower}/stack/layer_(\d+)", f"{front}hidden_states") for tower, front in layers.items()]
  weights = [(rf"{t}/stack/layer_(\d+)/self_attention", f"{front}attentions") for t, front in layers.items()]
  weights += [] if encoder else [(r"decoder/stack/layer_(\d+)/cross_attention", "cross_attentions")]
  return Case(
    f"{cls}-{name}", cls, config_cls, config, ours, theirs, outputs, hidden=tuple(hidden), weights=tuple(weights),
    **more,
  )  # fmt: skip
