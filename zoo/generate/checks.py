"""What `generate` refuses, in words."""

import jax.numpy as jnp

from zoo.errors import UserError
from zoo.generate.steps import encodes


def decodes(model):
  """Refuses a model that predicts no next token."""
  if not getattr(model, "decodes", False):
    raise UserError(
      f"{type(model).__name__} does not decode: it does not predict the next token. Use a gpt, for example."
    )


def tokens_fit(tokens, valid, what="tokens", name="valid"):
  """Refuses prompts that are no rows of whole numbers, or of which `valid` does not tell what is real."""
  if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
    raise UserError(
      f"{what} are {tokens.dtype} {list(tokens.shape)}. They must be whole numbers [batch, prompt length]."
    )
  if not all(tokens.shape):
    raise UserError(
      f"{what} have shape {list(tokens.shape)}. Give every prompt at least one token, e.g. the tokenizer's eos."
    )
  if valid is not None:
    if valid.shape != tokens.shape:
      raise UserError(
        f"{name} has shape {list(valid.shape)}, {what} {list(tokens.shape)}. Give one truth value per token."
      )
    if not valid.any(axis=1).all():
      raise UserError(f"A row of {name} is all False. Give every prompt at least one real token.")


def source_fits(model, tokens, valid):
  """Refuses what an encoder cannot read: text that is misshapen or too long."""
  if not jnp.issubdtype(tokens.dtype, jnp.integer):
    return  # Features: the model knows their shape.
  tokens_fit(tokens, valid)
  limit = model.encoder.max_length
  if limit is not None and tokens.shape[1] > limit:
    raise UserError(f"A text of {tokens.shape[1]} tokens exceeds what the encoder reads, {limit}. Crop it.")


def length_fits(model, prompt, max_new_tokens):
  """Refuses more tokens than the model has positions."""
  if max_new_tokens < 1:
    raise UserError(f"max_new_tokens is {max_new_tokens}. It must be at least 1.")
  if model.max_length is not None and prompt + max_new_tokens > model.max_length:
    raise UserError(
      f"A prompt of {prompt} and max_new_tokens {max_new_tokens} exceed the model's max_length {model.max_length}. "
      f"Crop the prompt to its last {max(model.max_length - max_new_tokens, 1)} tokens or ask for fewer new ones."
    )


def numbers(*, temperature, top_k, top_p, min_p, rng, repetition_penalty=None, no_repeat_ngram=None):
  """Refuses settings of draws and rules that are out of their range."""
  if temperature < 0:
    raise UserError(f"temperature is {temperature}. It must be 0 (the likeliest token) or above.")
  if temperature > 0 and rng is None:
    raise UserError(f"temperature {temperature} draws at random and needs an rng: rng=jax.random.key(0).")
  if top_k is not None and top_k < 1:
    raise UserError(f"top_k is {top_k}. It must be at least 1, or None for all tokens.")
  for name, value in (("top_p", top_p), ("min_p", min_p)):
    if value is not None and not 0 < value <= 1:
      raise UserError(f"{name} is {value}. It is a probability: above 0, at most 1.")
  if repetition_penalty is not None and repetition_penalty <= 0:
    raise UserError(f"repetition_penalty is {repetition_penalty}. It must be above 0; 1 changes nothing.")
  if no_repeat_ngram is not None and no_repeat_ngram < 0:
    raise UserError(f"no_repeat_ngram is {no_repeat_ngram}. It must be a number of tokens, 0 or None for none.")


def beams_fit(*, num_beams, num_return, early_stopping, temperature, stream):
  """Refuses what beam search cannot do."""
  if num_beams < 1:
    raise UserError(f"num_beams is {num_beams}. It must be at least 1.")
  if num_return is not None and not 1 <= num_return <= num_beams:
    raise UserError(f"num_return is {num_return} of num_beams {num_beams}. It must be at least 1, at most num_beams.")
  if early_stopping not in (True, False, "never"):
    raise UserError(f"early_stopping is {early_stopping!r}. It must be True, False or 'never'.")
  if num_beams > 1 and temperature > 0:
    raise UserError(f"num_beams is {num_beams}, temperature {temperature}: beam search does not draw. Choose one.")
  if num_beams > 1 and stream is not None:
    raise UserError(f"num_beams is {num_beams}: beam search knows its tokens at the end only. Leave out stream.")


def vocabulary_holds(model, **tokens):
  """Refuses tokens that the model does not have."""
  for name, values in tokens.items():
    for token in values:
      if not 0 <= int(token) < model.vocab_size:
        raise UserError(f"{name} has token {token}, the model's are 0 to {model.vocab_size - 1}.")


def of_encoder_only(model, decoder_tokens, decoder_valid):
  """Refuses a beginning of the answer where prompt and answer are one text."""
  if not encodes(model) and (decoder_tokens is not None or decoder_valid is not None):
    raise UserError(
      f"decoder_tokens and decoder_valid are of encoder-decoders; a {type(model).__name__} goes on from tokens."
    )
