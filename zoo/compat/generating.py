"""`generate` of old models, by `zoo.generate`: transformers 4, src/transformers/generation/flax_utils.py."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from zoo.compat.config import Config, entries_of
from zoo.compat.loading import report
from zoo.compat.model import FlaxModel
from zoo.compat.outputs import Output
from zoo.errors import UserError, did_you_mean
from zoo.generate import generate
from zoo.hub import generation
from zoo.hub.files import read_json
from zoo.storage import replacing

# Entries of a model's config for generation if there is no generation_config.json.
TOKENS = """bos_token_id eos_token_id pad_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id
max_length min_length num_beams num_return_sequences do_sample temperature top_k top_p length_penalty early_stopping
no_repeat_ngram_size repetition_penalty suppress_tokens begin_suppress_tokens bad_words_ids""".split()
LENGTH = 20  # transformers' defaults.


class Generating(FlaxModel):
  """Base class of old models that generate; subclasses define `generate` with `_generate`."""

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    entries = {name: getattr(self.config, name, None) for name in TOKENS}
    self.generation_config = Config(**{name: value for name, value in entries.items() if value is not None})

  @classmethod
  def _read(cls, folder, source, config, changes, options, replace, do_init):
    model, params = super()._read(folder, source, config, changes, options, replace, do_init)
    if (folder / generation.FILE).is_file():
      model.generation_config = Config(**read_json(folder / generation.FILE))
    return model, params

  def _write_more(self, folder: pathlib.Path) -> None:
    with replacing(folder / generation.FILE) as file:
      file.write_text(json.dumps(entries_of(self.generation_config), indent=2, sort_keys=True, default=str) + "\n")

  def _generate(self, input_ids, generation_config, prng_key, params, logits_processor, kwargs) -> Output:
    """See `Generates.generate`."""
    if logits_processor:
      raise UserError("logits_processor is not supported by this generate. Use zoo.generate(more_rules=...).")
    inputs = {
      name: kwargs.pop(name, None) for name in ("attention_mask", "decoder_input_ids", "decoder_attention_mask")
    }
    unknown = [name for name, x in kwargs.items() if x is not None and not generation.knows(name)]
    if unknown:  # In a file such an entry may be outdated; as an argument it is a mistake.
      hint = did_you_mean(unknown[0], [*generation.SAME, *generation.OTHERS, *generation.DRAWN])
      raise UserError(f"{type(self).__name__}.generate: {unknown[0]} is not an argument.{hint}")
    entries = entries_of(self.generation_config if generation_config is None else generation_config)
    entries = {name: x for name, x in {**entries, **kwargs}.items() if x is not None and not name.startswith("_")}
    answers = self._is_ours() and hasattr(self.module.core.writer, "encode")
    begun = inputs["decoder_input_ids"] if answers else input_ids
    length = 1 if begun is None else jnp.shape(begun)[1]
    options = self._options(entries, answers, length)
    if not answers or begun is not None:
      options.pop("start_token", None)
    elif "start_token" in options:
      options["start_token"] = self._known_start(options["start_token"], entries)
    mask, decoder_mask = inputs["attention_mask"], inputs["decoder_attention_mask"]
    result = generate(
      self.module.core.writer,
      self.module.core.to_ours(self.params if params is None else params),
      self._source(input_ids),
      valid=None if mask is None else jnp.asarray(mask) > 0,
      decoder_tokens=begun if answers else None,
      decoder_valid=None if decoder_mask is None else jnp.asarray(decoder_mask) > 0,
      rng=jax.random.PRNGKey(0) if prng_key is None else prng_key,
      return_scores=options.get("num_beams", 1) > 1,
      **options,
    )
    sequences, scores = result if isinstance(result, tuple) else (result, None)
    out = {"sequences": sequences.reshape(-1, sequences.shape[-1])}
    return Output(out if scores is None else out | {"scores": scores.reshape(-1)})

  def _source(self, input_ids: Any) -> jax.Array:
    return jnp.asarray(input_ids, jnp.int32)

  def _options(self, entries: Mapping[str, Any], answers: bool, length: int) -> dict[str, Any]:
    """Keywords of `zoo.generate` from old entries; `length`: number of tokens before the first new one."""
    entries = dict(entries)
    least = entries.pop("min_length", 0)
    longest, new = entries.pop("max_length", LENGTH), entries.pop("max_new_tokens", None)
    new = longest - length if new is None else new
    start = entries.get("decoder_start_token_id")
    if entries.get("do_sample"):
      entries.setdefault("top_k", 50)
      entries = {name: x for name, x in entries.items() if name != "top_k" or x}
    else:
      entries = {name: x for name, x in entries.items() if name not in ("temperature", "top_k", "top_p")}
    config = entries_of(self.config) | ({"is_encoder_decoder": True} if answers else {})
    options = generation.options(entries, config, "generate", None if answers else length)
    # A token outside the vocabulary cannot occur: defaults of configs assume large vocabularies.
    for name in ("eos", "suppress", "suppress_first"):
      if name in options:
        values = options[name] if isinstance(options[name], list) else [options[name]]
        options[name] = [token for token in values if token < self.module.core.writer.vocab_size]
    if answers and start is not None:
      options.setdefault("start_token", start)
    # Old lengths include the start tokens, of which max_new_tokens excludes only the first.
    begun = options.get("start_token") if length == 1 else None
    more = len(begun) - 1 if isinstance(begun, list) else 0
    if new <= more:
      raise UserError(
        f"{length + new} tokens do not fit after the {length + more} that answers begin with. Ask for more."
      )
    least = max(options.get("min_new_tokens", 0), least - length) - more
    return options | {"max_new_tokens": new - more, "min_new_tokens": max(least, 0)}

  def _known_start(self, start: Any, entries: Mapping[str, Any]) -> Any:
    """The start token, or the padding token if the former is a default outside the vocabulary."""
    size, pad = self.module.core.writer.vocab_size, entries.get("pad_token_id")
    if not isinstance(start, int) or start < size or not isinstance(pad, int) or not 0 <= pad < size:
      return start
    report(
      f"decoder_start_token_id is {start}, the model's tokens are 0 to {size - 1}: answers begin with padding, {pad}."
    )
    return pad


class Generates(Generating):
  """Base class of old models that generate, with the common signature of `generate`."""

  def generate(
    self,
    input_ids: Any,
    generation_config: Any = None,
    prng_key: Any = None,
    trace: bool = True,
    params: Any = None,
    logits_processor: Any = None,
    **kwargs: Any,
  ) -> Output:
    """Continues each text; for an encoder-decoder answers each source. Works under `jax.jit`.

    Args:
      input_ids: int32 [batch, length]; for a Whisper float [batch, mels, frames].
      generation_config: entries; by default the model's own, from its files or config.
      prng_key: for do_sample; seed 0 if None. Samples differ from those of transformers.
      trace: ignored.
      params: under the old names; the model's own if None.
      logits_processor: refused; use `more_rules` of `zoo.generate`.
      **kwargs: attention_mask, decoder_input_ids, decoder_attention_mask; entries of the generation_config to change:
        max_length (default 20), max_new_tokens, min_length, do_sample, temperature, top_k, top_p, num_beams,
        num_return_sequences, length_penalty, early_stopping, eos_token_id, pad_token_id, decoder_start_token_id,
        forced_bos_token_id, forced_eos_token_id, no_repeat_ngram_size, repetition_penalty, suppress_tokens.

    Returns:
      Output with sequences, int32 [batch, max_length], padded with pad_token_id; for num_return_sequences above 1
      [batch * num_return_sequences, max_length]; for beam search also scores.

    Raises:
      UserError: an error of `zoo.generate`, or an unknown entry.
    """
    return self._generate(input_ids, generation_config, prng_key, params, logits_processor, kwargs)
