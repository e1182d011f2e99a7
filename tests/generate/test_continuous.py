import jax
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate.continuous import Request, continuous
from zoo.generate.continuous import _Batch as continuous_batch
from zoo.sharding import make_mesh, shardings

LONGEST, MOST = 29, 13
MODELS = {
  "gpt": zoo.build("gpt", vocab_size=23, max_length=60, dim=6, depth=2, num_heads=3),
  "t5": zoo.build("t5", vocab_size=23, dim=6, depth=1, num_heads=2, head_dim=3),
  "gemma": zoo.build(
    "gemma", vocab_size=23, dim=6, depth=2, num_heads=2, head_dim=4, mlp_dim=7, max_length=60, window=5,
    pattern=["local", "global"],
  ),
}  # fmt: skip
OPTIONS = {
  "likeliest": {},
  "drawn": dict(temperature=1.3, top_k=11),
  "with rules": dict(repetition_penalty=1.4, no_repeat_ngram=2, stop=[[3, 4], [7]], min_new_tokens=2),
}


def requests(count=11, seed=0):
  """Prompts of different lengths, the longest first, each with its own limit."""
  rng = np.random.default_rng(seed)
  lengths = sorted([LONGEST, *rng.integers(1, LONGEST, count - 1).tolist()], reverse=True)
  limits = [MOST, *rng.integers(1, MOST, count - 1).tolist()]
  return [Request(i, rng.integers(0, 23, n).tolist(), m) for i, (n, m) in enumerate(zip(lengths, limits))]


def alone(model, params, request, rng=None, **options):
  """The tokens that `generate` returns after one prompt, without padding."""
  options |= {} if rng is None else {"rng": jax.random.fold_in(rng, request.number)}
  # All of one shape, padded, so that few programs are compiled.
  tokens, valid = np.zeros((1, LONGEST), np.int32), np.arange(LONGEST)[None] < len(request.tokens)
  tokens[valid] = request.tokens
  out = zoo.generate(model, params, tokens, valid=valid, max_new_tokens=request.max_new_tokens, pad=-1, **options)
  return [token for token in np.asarray(out)[0, -request.max_new_tokens :].tolist() if token >= 0]


def answers(model, params, asked, **options):
  options = dict(longest=LONGEST, max_new_tokens=MOST, batch_size=4) | options
  return {answer.number: answer for answer in continuous(model, params, asked, **options)}


@pytest.mark.parametrize(
  "family, how",
  [("gpt", "likeliest"), ("gpt", "drawn"), ("gpt", "with rules"), ("t5", "drawn"), ("gemma", "likeliest")],
)
def test_each_prompt_is_answered_as_it_would_be_alone(family, how):
  model, options = MODELS[family], {"eos": 9, **OPTIONS[how]}
  options |= {"rng": jax.random.key(3)} if how == "drawn" else {}
  params, asked = filled(model, *model.example(), seed=5), requests()
  results = answers(model, params, asked, **options)
  wanted = {request.number: alone(model, params, request, **options) for request in asked}
  assert {number: answer.tokens for number, answer in results.items()} == wanted
  for request in asked:
    tokens, stops = wanted[request.number], [tuple(row) for row in options.get("stop", ())]
    ended = tokens[-1] == 9 or any(tuple(tokens[-len(stop) :]) == stop for stop in stops)
    assert results[request.number].ended == (ended or len(tokens) < request.max_new_tokens)
  assert len({tuple(tokens) for tokens in wanted.values()}) > 5


def test_rows_over_a_mesh_write_the_same():
  model = zoo.build("gpt", vocab_size=24, max_length=60, dim=8, depth=1, num_heads=4)
  params, asked = filled(model, *model.example(), seed=5), requests(seed=1)
  wanted = answers(model, params, asked, eos=9)
  mesh = make_mesh({"data": 2, "model": 4})
  placed = jax.device_put(params, shardings(params, "tensor", mesh))
  assert answers(model, placed, asked, eos=9) == wanted


def test_the_texts_that_end_make_room_for_others():
  from zoo.generate import slots

  model = MODELS["gpt"]
  params = filled(model, *model.example(), seed=5)
  programs = slots.join._cache_size(), slots.advance._cache_size()
  taken, most = [], 0

  def asking():
    for request in requests(23):
      taken.append(request.number)
      yield request._replace(max_new_tokens=1 + request.number % MOST)

  options = dict(longest=LONGEST, max_new_tokens=MOST, batch_size=4)
  for count, _ in enumerate(continuous(model, params, asking(), **options)):
    most = max(most, len(taken) - count)
  assert len(taken) == 23 and most <= 4 + 1 + 1  # Those in the slots, the next one, and the one just returned.
  # Prompts are padded to 32, 24 and 16 columns, and the caches follow: one program each.
  assert slots.join._cache_size() - programs[0] <= 5 and slots.advance._cache_size() - programs[1] <= 3


def test_prompts_are_read_in_full_groups(monkeypatch):
  model, sizes = MODELS["gpt"], []
  params = filled(model, *model.example(), seed=5)
  join = continuous_batch._join
  monkeypatch.setattr(
    continuous_batch, "_join", lambda batch, group, rows: (sizes.append(len(group)), join(batch, group, rows))
  )
  asked = [Request(i, [3, 4], 1 + i % 3) for i in range(31)]  # Several end at a step, and not by twos.
  results = answers(model, params, asked, longest=2, max_new_tokens=3, batch_size=16)
  assert len(results) == 31 and sizes == [2] * 15 + [1]


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(max_new_tokens=40), "A prompt of 29 and max_new_tokens 40 exceed the model's max_length 60"),
    (dict(batch_size=0), "batch_size is 0. It must be an int, at least 1"),
    (dict(temperature=0.5), "temperature 0.5 samples and needs an rng"),
    (dict(longest=3), "A request is longer than `longest` and `max_new_tokens` say"),
  ],
)
def test_options_that_do_not_fit_are_refused(options, message):
  model = MODELS["gpt"]
  with pytest.raises(UserError, match=message):
    answers(model, filled(model, *model.example(), seed=5), requests(), **options)
