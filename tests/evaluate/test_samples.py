import jax
import numpy as np
import pytest

import zoo
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError
from zoo.evaluate.samples import samples


def tiny_gpt(length=64, vocab_size=260):
  model = zoo.build("gpt", vocab_size=vocab_size, max_length=length, dim=8, depth=1, num_heads=2)
  return model, jax.jit(model.init)(jax.random.key(0), *model.example())["params"]


def test_what_is_written_follows_the_prompts_and_repeats_itself(tmp_path):
  model, params = tiny_gpt(vocab_size=997)  # Most tokens are padding of the embedding, and no text.
  prompts = ["", "Fellow citizens", "We"]
  evaluate = samples(model, prompts=prompts, tokenizer="bytes", max_new_tokens=9, temperature=1.0, file="speech")
  results = evaluate(params, tmp_path, 12)
  text = (tmp_path / "speech.txt").read_text()
  head, *parts = text.split("\n\n---\n\n")
  assert head.startswith("Step 12, temperature 1.0")
  assert [part.split("|")[0] for part in parts] == prompts
  assert 0 < results["tokens"] <= 9 and 0 < results["distinct"] <= 1
  assert evaluate(params, tmp_path, 12) == results
  assert (tmp_path / "speech.txt").read_text() == text


def test_the_likeliest_text_is_the_one_that_generate_gives(tmp_path):
  model, params = tiny_gpt()
  encoder = tokenizer("bytes")
  samples(model, prompts=["We", "and so"], tokenizer="bytes", max_new_tokens=7, temperature=0.0)(params, tmp_path)
  start = np.array([[encoder.eos, *encoder.encode("We")]])
  whole = np.asarray(zoo.generate(model, params, start, max_new_tokens=7, eos=encoder.eos))[0, 3:].tolist()
  wanted = encoder.decode(whole[: whole.index(encoder.eos)] if encoder.eos in whole else whole)
  assert f"We|{wanted}\n" in (tmp_path / "samples.txt").read_text()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  model, params = tiny_gpt()
  samples(model, tokenizer="bytes", max_new_tokens=3)(params)
  assert not list(tmp_path.iterdir())


def test_a_model_that_does_not_decode_is_refused():
  with pytest.raises(UserError, match="bert does not decode"):
    samples(zoo.build("bert", vocab_size=260, max_length=8, dim=8, depth=1, num_heads=2), tokenizer="bytes")


@pytest.mark.parametrize(
  "options, message",
  [
    ({"max_new_tokens": -1}, "max_new_tokens is -1. It must be an int, at least 1"),
    ({"max_new_tokens": 500}, "A prompt of 2 and max_new_tokens 500 exceed the model's max_length"),
    ({"temperature": -1.0}, "temperature is -1.0. It must be a number, at least 0"),
    ({"top_k": 0}, "top_k is 0. It must be"),
    ({"top_p": 2.0}, "top_p is 2.0. It must be"),
  ],
)
def test_what_generate_would_refuse_is_refused_before_training(options, message):
  with pytest.raises(UserError, match=message):
    samples(tiny_gpt()[0], prompts="W", tokenizer="bytes", **{"max_new_tokens": 3, **options})


def test_no_prompt_is_refused():
  with pytest.raises(UserError, match="prompts is empty"):
    samples(tiny_gpt()[0], prompts=[], tokenizer="bytes")
