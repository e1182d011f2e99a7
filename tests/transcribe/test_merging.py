"""What was written for windows, as one text: equal to the reference's chunks on the same tokens."""

import numpy as np
import pytest

from tests.transcribe.listener import START, whisper_folder
from zoo.data.tokenizers import tokenizer as open_tokenizer
from zoo.transcribe.merging import Answer, Marks, joined, merged


def drawn(rng, tokens, count, times):
  """Windows' tokens, each of which begins with what the one before ends with, with a few mistakes."""
  texts, tail = [], []
  for _ in range(count):
    new = rng.choice(tokens, rng.integers(0, 30))
    new = np.where(rng.random(len(new)) < times, rng.integers(tokens[-1] + 1, tokens[-1] + 200, len(new)), new)
    text = [*tail, *new.tolist()]
    wrong = rng.random(len(text)) < 0.1
    texts.append([int(rng.choice(tokens)) if bad else token for token, bad in zip(text, wrong)])
    tail = text[max(0, len(text) - int(rng.integers(0, 12))) :]
  return texts


def test_windows_are_joined_where_they_agree_most():
  reference = pytest.importorskip("transformers.models.whisper.tokenization_whisper")
  rng = np.random.default_rng(0)
  for _ in range(200):
    texts = drawn(rng, np.arange(5), int(rng.integers(1, 5)), 0.0)
    assert joined(texts) == reference._find_longest_common_sequence(texts)


def test_texts_with_times_and_languages_are_those_of_the_reference(tmp_path):
  transformers = pytest.importorskip("transformers")
  torch = pytest.importorskip("torch")
  whisper_folder(tmp_path, seconds=4)
  theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), open_tokenizer(str(tmp_path))
  marks = Marks.of(ours, 0.02)
  assert marks.times == theirs.convert_tokens_to_ids("<|0.00|>")
  rng = np.random.default_rng(1)
  kinds = set()
  for round_ in range(300):
    count, times = int(rng.integers(1, 5)), (0.0, 0.1, 0.5)[round_ % 3]
    texts = drawn(rng, np.r_[np.arange(60, 70), START + 1 + np.r_[:5, 6:8]], count, times)
    strides = [(4.0, 0.7 * (i > 0), 0.7 * (i < count - 1)) for i in range(count)]
    outputs = [{"tokens": torch.tensor([text]), "stride": stride} for text, stride in zip(texts, strides)]
    wanted = theirs._decode_asr(outputs, return_timestamps=None, return_language=None, time_precision=0.02)[0]
    answers = [Answer(text, *stride) for text, stride in zip(texts, strides)]
    assert merged(answers, marks, ours.decode) == wanted.strip()
    kinds.add(wanted)
  assert len(kinds) > 200


def test_nothing_written_is_an_empty_text():
  marks = Marks(frozenset({9}), {}, None, 0.02)
  assert merged([Answer([], 3.0, 0.0, 0.5), Answer([9], 2.0, 0.5, 0.0)], marks, str) == ""
