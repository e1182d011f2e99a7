"""The model interface of lm-evaluation-harness: log-likelihoods of texts, and generation up to a stop string.

`zoo.evaluate.harness.adapter` combines `HarnessModel` with lm_eval's `TemplateLM`, which splits texts into context and
continuation; nothing here imports lm_eval before that.
"""

import functools
import importlib
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from zoo.build import check_tokens
from zoo.errors import UserError, did_you_mean, shown
from zoo.evaluate.forward import fetch, put
from zoo.evaluate.generation import before
from zoo.evaluate.harness_tokenizer import HarnessTokenizer, power_above
from zoo.generate import generate
from zoo.generate.steps import encodes
from zoo.hub import generation as stated
from zoo.sharding import mesh_of
from zoo.tree import variables

# Entries of generation_kwargs that belong to lm_eval, and lengths of a file that max_gen_toks replaces.
OF_HARNESS = ("until", "max_gen_toks", "do_sample", "temperature")
LENGTHS = ("max_length", "max_new_tokens")


@functools.partial(jax.jit, static_argnames="model")
def log_likelihoods(model: Any, params: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
  """The log-probability of targets, and whether each of their tokens is the likeliest.

  Args:
    model: a decoder or an encoder-decoder.
    params: its parameters.
    batch: tokens, valid [batch, length], the decoder's input; predict [batch, count], the positions before those of
      the targets; targets [batch, choices, count]; counts bool [batch, count], True for real ones; for an
      encoder-decoder also source, source_valid [batch, source length].

  Returns:
    log_likelihood float32, greedy bool, both [batch, choices].
  """
  weights, predict = variables(params), batch["predict"]
  if encodes(model):
    valid = batch["source_valid"]
    encoded = model.apply(weights, batch["source"], valid=valid, method="encode")
    more = {"valid": valid, "decoder_valid": batch["valid"], "predict": predict, "method": "decode"}
    logits = model.apply(weights, batch["tokens"], encoded, **more)
  else:
    logits = model.apply(weights, batch["tokens"], valid=batch["valid"], predict=predict)
  scores = jax.nn.log_softmax(logits.astype(jnp.float32))
  targets, counts = batch["targets"], batch["counts"][:, None]
  chosen = jnp.take_along_axis(scores[:, None], targets[..., None], axis=-1)[..., 0]
  likeliest = (scores.argmax(-1)[:, None] == targets) | ~counts
  return {"log_likelihood": (chosen * counts).sum(-1), "greedy": likeliest.all(-1)}


class HarnessModel:
  """Mixin with the methods that lm_eval calls, for a subclass of `lm_eval.api.model.TemplateLM`.

  Rows are sorted by length and padded to few lengths, so that few programs are compiled. Requests that differ in the
  last token only, such as the letters of choices, share a row.
  """

  cache_hook: Any  # Attributes of TemplateLM.

  def __init__(
    self,
    model: Any,
    params: Any,
    tokenizer: HarnessTokenizer,
    *,
    batch_size: int,
    max_length: int,
    max_gen_toks: int,
    seed: int,
    entries: tuple[dict[str, Any], dict[str, Any], str],
  ):
    super().__init__()
    self.model, self.params, self.texts = model, params, tokenizer
    self.batch_size, self.max_length, self.max_gen_toks, self.seed = batch_size, max_length, max_gen_toks, seed
    self.entries, self.backend = entries, "seq2seq" if encodes(model) else "causal"
    source = getattr(model.encoder, "max_length", None) if encodes(model) else None
    self.source_length = max_length if source is None else min(source, max_length)

  @property
  def eot_token_id(self) -> int | None:
    """The end-of-text token."""
    return self.texts.end

  @property
  def prefix_token_id(self) -> int:
    """The token before a text without context."""
    return self.texts.prefix

  def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
    """The ids of a text; see `HarnessTokenizer.encode`."""
    return self.texts.encode(string, add_special_tokens)

  def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
    """UserError: the zoo has no chat templates."""
    raise UserError("The zoo applies no chat templates. Leave out apply_chat_template, or write the signs in the task.")

  def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
    """The log-likelihood of full texts, in windows that overlap by one token.

    Args:
      requests: with `args` (text,).
      disable_tqdm: whether to hide the progress bar.
    """
    utils = importlib.import_module("lm_eval.utils")
    windows, places = [], []
    for place, request in enumerate(requests):
      tokens = self.tok_encode(request.args[0])
      rolling = utils.get_rolling_token_windows(tokens, self.texts.prefix, self.max_length, context_len=1)
      windows += [(None, *utils.make_disjoint_window(window)) for window in rolling]
      places += [place] * (len(windows) - len(places))
    totals = [0.0] * len(requests)
    for place, (log_likelihood, _) in zip(places, self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)):
      totals[place] += log_likelihood
    for request, total in zip(requests, totals):
      self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
    return totals

  def _loglikelihood_tokens(
    self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
  ) -> list[tuple[float, bool]]:
    """(log-likelihood, whether it is the greedy continuation) of (names, context, continuation)."""
    rows: dict[tuple, dict[tuple, list[int]]] = defaultdict(lambda: defaultdict(list))
    cut = 0
    for number, (names, context, target) in enumerate(requests):
      if not context or not target or len(target) > self.max_length:
        raise UserError(
          f"A context of {len(context)} tokens and a continuation of {len(target)} cannot be scored: at least 1 "
          f"and 1 to {self.max_length} are needed. The request is {shown(names)}."
        )
      if self.backend == "causal":
        source, tokens = (), (context + target)[-(self.max_length + 1) : -1]
        cut += len(context) + len(target) > self.max_length + 1
      else:
        source, tokens = context[-self.source_length :], [self.model.start_token, *target[:-1]]
        cut += len(context) > self.source_length
      rows[tuple(source), tuple(tokens), len(target)][tuple(target)].append(number)
    self._warn(cut, self.max_length if self.backend == "causal" else self.source_length)
    results: list[Any] = [None] * len(requests)
    with tqdm(total=len(requests), desc="Log-likelihoods", disable=disable_tqdm or jax.process_index() > 0) as bar:
      for batch in _batches(sorted(rows, key=lambda row: (-len(row[0]), -len(row[1]), row)), self.batch_size):
        arrays = self._arrays(batch, [list(rows[row]) for row in batch])
        check_tokens(self.model, arrays, "lm_eval")
        out = log_likelihoods(self.model, self.params, put(arrays, mesh_of(self.params)))
        values, greedy = fetch(out["log_likelihood"]), fetch(out["greedy"])
        for place, row in enumerate(batch):
          for choice, numbers in enumerate(rows[row].values()):
            for number in numbers:
              results[number] = (float(values[place, choice]), bool(greedy[place, choice]))
              if requests[number][0] is not None:
                self.cache_hook.add_partial("loglikelihood", requests[number][0], results[number])
              bar.update()
    return results

  def _arrays(self, rows: Sequence[tuple], targets: Sequence[Sequence[tuple]]) -> dict[str, np.ndarray]:
    """The batch of `log_likelihoods`, in a shape shared by batches of similar lengths."""
    tokens, valid = self._padded([row[1] for row in rows], self.max_length)
    count = min(power_above(max(row[2] for row in rows), 4), tokens.shape[1])
    predict, counts = np.zeros((self.batch_size, count), np.int32), np.zeros((self.batch_size, count), bool)
    chosen = np.zeros((self.batch_size, power_above(max(map(len, targets)), 4), count), np.int32)
    for place, (row, choices) in enumerate(zip(rows, targets)):
      predict[place, : row[2]] = np.arange(len(row[1]) - row[2], len(row[1]))
      counts[place, : row[2]] = True
      chosen[place, : len(choices), : row[2]] = choices
    batch = {"tokens": tokens, "valid": valid, "predict": predict, "counts": counts, "targets": chosen}
    if self.backend == "seq2seq":
      batch["source"], batch["source_valid"] = self._padded([row[0] for row in rows], self.source_length)
    return batch

  def _padded(self, rows: Sequence[Sequence[int]], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """tokens, valid [batch_size, length]; the last row is repeated to fill the batch."""
    length = min(max(power_above(max(map(len, rows)), 2), 16), limit)
    tokens, valid = np.zeros((self.batch_size, length), np.int32), np.zeros((self.batch_size, length), bool)
    for place, row in enumerate([*rows, *[rows[-1]] * (self.batch_size - len(rows))]):
      tokens[place, : len(row)], valid[place, : len(row)] = row, True
    return tokens, valid

  def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
    """The text generated after each context, up to its first stop string.

    Args:
      requests: with `args` (context, generation_kwargs).
      disable_tqdm: whether to hide the progress bar.

    Raises:
      UserError: generation_kwargs has an unsupported entry, or leaves no space for a context.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
      groups[json.dumps(request.args[1], sort_keys=True, default=str)].append(number)
    texts = [""] * len(requests)
    with tqdm(total=len(requests), desc="Texts", disable=disable_tqdm or jax.process_index() > 0) as bar:
      for numbers in groups.values():
        contexts = {number: self.tok_encode(requests[number].args[0]) or [self.texts.prefix] for number in numbers}
        kwargs = requests[numbers[0]].args[1]
        for batch in _batches(sorted(numbers, key=lambda number: -len(contexts[number])), self.batch_size):
          rng = jax.random.fold_in(jax.random.key(self.seed), bar.n)
          for number, text in zip(batch, self._write([contexts[number] for number in batch], kwargs, rng)):
            texts[number] = text
            self.cache_hook.add_partial("generate_until", requests[number].args, text)
          bar.update(len(batch))
    return texts

  def _write(self, contexts: Sequence[list[int]], kwargs: Mapping[str, Any], rng: jax.Array) -> list[str]:
    """Generates the texts after a batch of contexts."""
    utils = importlib.import_module("lm_eval.models.utils")
    options: dict[str, Any] = dict(utils.normalize_gen_kwargs(dict(kwargs), self.max_gen_toks))
    room = options.pop("max_gen_toks")
    until = utils.handle_stop_sequences(options.pop("until"), eos=self.texts.end_sign)
    limit = self.source_length if self.backend == "seq2seq" else self.max_length - room
    if room < 1 or limit < 1:
      raise UserError(
        f"max_gen_toks is {room}, and the model reads {self.max_length} tokens, contexts too. Choose another: "
        "max_gen_toks in generation_kwargs, or --gen_kwargs='{\"max_gen_toks\": 8}'."
      )
    self._warn(sum(len(context) > limit for context in contexts), limit)
    rows = [context[-limit:] for context in contexts]
    keywords = self._keywords(options, max(map(len, rows)))
    tokens, valid = self._padded(rows, limit)
    check_tokens(self.model, {"tokens": tokens}, "lm_eval")
    ends = [token for token in dict.fromkeys([*keywords.pop("eos"), self.texts.end]) if token is not None]
    stop = self.texts.stops(tuple(until))
    arrays = put({"tokens": tokens, "valid": valid}, mesh_of(self.params))
    keywords |= {"rng": rng} if keywords.get("temperature") else {}
    out = generate(self.model, self.params, **arrays, max_new_tokens=room, eos=ends or None, stop=stop, **keywords)
    texts = []
    for row in fetch(out)[: len(rows), -room:].tolist():
      texts.append(utils.postprocess_generated_text(self.texts.decode(before(row, ends)), until, None))
    return texts

  def _keywords(self, options: dict[str, Any], length: int) -> dict[str, Any]:
    """Keywords of `zoo.generate`: those of the folder, overridden by generation_kwargs with transformers' names."""
    for name in options:
      if name in LENGTHS or not (name in OF_HARNESS or stated.knows(name)):
        way_out = (
          " Use max_gen_toks." if name in LENGTHS else did_you_mean(name, (*OF_HARNESS, *stated.SAME, *stated.DRAWN))
        )
        raise UserError(f"generation_kwargs has {name}, which the zoo does not have.{way_out}")
    entries, config, where = self.entries
    entries = {name: value for name, value in entries.items() if name not in LENGTHS} | options
    entries["temperature"] = options.get("temperature", 0.0)  # As in lm_eval, which samples only above 0.
    keywords = stated.options(entries, config, f"generation_kwargs{where and f' and {where}'}", length)
    ends = keywords.pop("eos", None)
    for name in ("pad", "num_return"):  # Tokens after an end are not text, and of several beams the best is taken.
      keywords.pop(name, None)
    return keywords | {"eos": ends if isinstance(ends, list) else [ends]}

  def _warn(self, cut: int, limit: int) -> None:
    if cut:
      warnings.warn(f"Contexts lose their beginning where they exceed the {limit} tokens that are read.", stacklevel=4)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
  """Chunks of `size`; the last one may be smaller."""
  for start in range(0, len(items), size):
    yield items[start : start + size]
