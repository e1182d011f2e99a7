import numpy as np
import pytest

from tests.data.toys import write_jsonl
from zoo.data.corruption import infilled, noise_mask, shuffled, span_lengths, with_sentinels
from zoo.data.denoising import denoising
from zoo.data.pipeline import batches
from zoo.data.prefix_lm import prefix_lm
from zoo.data.span_corruption import span_corruption
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError

BYTES = tokenizer("bytes")
DOCUMENTS = [" ".join(f"Sentence {n} of {d} ends here." for n in range(9)) for d in range(7)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def source(tmp_path):
  write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in DOCUMENTS])
  return f"jsonl:{tmp_path}"


def rng(seed=0):
  return np.random.default_rng(seed)


@pytest.mark.parametrize("inputs, tokens, targets", [(512, 568, 114), (1024, 1137, 229), (256, 284, 58)])
def test_lengths_are_those_of_t5(inputs, tokens, targets):
  """568 and 114 are what T5 was trained with; the others follow from its rule."""
  assert span_lengths(inputs, 0.15, 3.0) == (tokens, targets)


@pytest.mark.parametrize(
  "length, rate, mean", [(2, 0.15, 3), (20, 0.15, 3), (568, 0.15, 3), (97, 0.5, 10), (40, 0.9, 1)]
)
def test_a_mask_has_as_many_spans_and_lost_tokens_as_t5_counts(length, rate, mean):
  noise = min(max(round(length * rate), 1), length - 1)
  spans = min(max(round(noise / mean), 1), length - noise)
  masks = [noise_mask(length, rate, mean, rng(seed)) for seed in range(20)]
  for mask in masks:
    assert mask.shape == (length,) and mask.sum() == noise and not mask[0] and mask[-1]
    assert (np.diff(mask.astype(int)) == 1).sum() == spans
  assert length < 40 or len({mask.tobytes() for mask in masks}) > 10


def test_all_masks_are_equally_likely():
  """7 tokens, 4 of them dropped in 2 spans: 2 ways to split the kept ones, 3 to split the dropped ones."""
  masks, counts = np.unique([noise_mask(7, 0.6, 2, rng(seed)) for seed in range(1200)], axis=0, return_counts=True)
  assert len(masks) == 6 and abs(counts - 200).max() < 5 * np.sqrt(200)


def test_the_example_of_the_paper():
  words = np.arange(11)  # Thank you for inviting me to your party last week .
  lost = np.isin(words, [2, 3, 8])
  assert with_sentinels(words, lost, 99).tolist() == [0, 1, 99, 4, 5, 6, 7, 98, 9, 10]
  assert with_sentinels(words, ~lost, 99).tolist() == [99, 2, 3, 98, 8, 97]


def mended(example, first):
  """Reconstructs the text from source and target of span corruption."""
  spans, original = {}, []
  for token in example["target_tokens"][:-1].tolist():
    if token > first - 100:
      spans[token] = last = []
    else:
      last.append(token)
  for token in example["tokens"][:-1].tolist():
    original += spans[token] if token > first - 100 else [token]
  return original


def test_span_corruption_fills_its_lengths_and_loses_nothing(source):
  records = span_corruption(source, tokenizer="bytes", max_length=64)
  info, stream = records.info, "".join(records.chunks.tokens.astype(np.uint8).tobytes().decode())
  assert info["vocab_size"] == BYTES.vocab_size + 100 == info["first_sentinel"] + 1
  text = ""
  for index in range(len(records)):
    example = records[index]
    assert example["tokens"].shape == (64,) and example["target_tokens"].shape == (info["target_length"],)
    assert example["valid"].all() and example["target_valid"].all()
    assert example["tokens"][-1] == example["target_tokens"][-1] == BYTES.eos
    assert example["target_tokens"][0] == info["first_sentinel"]
    text += BYTES.decode(mended(example, info["first_sentinel"]))
  length = records.chunks.length
  assert text[: length * (len(records) - 1)] == stream[: length * (len(records) - 1)]
  assert text[-length:] == stream[-length:]


def test_a_closing_sentinel_stands_before_the_end(source):
  plain = span_corruption(source, tokenizer="bytes", max_length=64)[3]["target_tokens"]
  closed = span_corruption(source, tokenizer="bytes", max_length=64, closing=True)[3]["target_tokens"]
  sentinels = plain[plain > BYTES.vocab_size - 1]
  assert closed.tolist() == [*plain[:-1], sentinels.min() - 1, BYTES.eos]


def test_a_prefix_and_the_rest_are_the_chunk(source):
  records = prefix_lm(source, tokenizer="bytes", max_length=40)
  cuts = set()
  for index in range(len(records)):
    example = records[index]
    first, rest = (example[f"{name}tokens"][example[f"{name}valid"]] for name in ("", "target_"))
    assert first[-1] == rest[-1] == BYTES.eos and len(first) > 1 and len(rest) > 1
    np.testing.assert_array_equal(np.concatenate([first[:-1], rest[:-1]]), records.chunks[index])
    cuts.add(len(first))
  assert len(cuts) > 3


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_infilling_loses_its_share_and_keeps_the_order_of_the_rest(rate):
  tokens = np.arange(1, 101)
  corrupted = [infilled(tokens, 0, rate, 3.0, rng(seed)) for seed in range(200)]
  for original in corrupted:
    kept = original[original != 0]
    assert len(kept) == 100 - round(100 * rate) and (np.diff(kept) > 0).all()
  if rate:  # Poisson(3) cut to what is left: nearly `rate / 3` masks a token.
    masks = np.mean([(original == 0).sum() for original in corrupted])
    assert rate * 100 / 3 < masks < rate * 100 / 3 * 1.2
    assert any((np.diff(original[original != 0]) == 1).sum() > 0 for original in corrupted)


def test_shuffling_keeps_sentences_whole():
  sentences = [np.full(n + 1, n) for n in range(5)]
  orders = {tuple(shuffled(sentences, rng(seed))) for seed in range(30)}
  assert len(orders) > 20
  for order in orders:
    assert sorted(order) == sorted(np.concatenate(sentences).tolist()) and (np.diff(order) != 0).sum() == 4


def test_denoising_gives_whole_sentences_back(source):
  records = denoising(source, tokenizer="bytes", max_length=60)
  texts = []
  for index in range(len(records)):
    example = records[index]
    noisy, target = (example[f"{name}tokens"][example[f"{name}valid"]] for name in ("", "target_"))
    assert noisy[0] == target[0] == BYTES.bos and noisy[-1] == target[-1] == BYTES.eos
    lost = len(target) - 2 - (~np.isin(noisy, [BYTES.bos, BYTES.eos, BYTES.mask])).sum()
    assert lost == round(0.3 * (len(target) - 2)) and (noisy == BYTES.mask).sum() > 0
    texts.append(BYTES.decode(target[1:-1]))
  wanted = sorted("".join(DOCUMENTS).replace(". ", ".").split("."))
  assert sorted("".join(texts).split(".")) == wanted  # every sentence once
  quiet = denoising(source, tokenizer="bytes", max_length=60, rate=0.0, permute=False)[1]
  np.testing.assert_array_equal(quiet["tokens"], quiet["target_tokens"])


def test_a_sentence_that_is_too_long_is_cut(source):
  records = denoising(source, tokenizer="bytes", max_length=10, permute=False)
  assert len(records) == 63
  assert BYTES.decode(records[0]["target_tokens"][1:9]) == "Sentence"


PIPELINES = [span_corruption, prefix_lm, denoising]


@pytest.mark.parametrize("make", PIPELINES)
def test_noise_is_drawn_anew_in_training_and_the_same_in_evaluation(make, source):
  records = make(source, tokenizer="bytes", max_length=50)
  same = lambda a, b: all((a[name] == b[name]).all() for name in a)
  assert same(records[2], records[2])
  assert not same(records.example(2, rng(1)), records.example(2, rng(2)))
  corrupted = batches(records, 4, seed=1)
  halves = [batches(records, 4, seed=1, process_index=n, process_count=2)[5] for n in range(2)]
  assert same(corrupted[5], batches(records, 4, seed=1)[5])
  assert same(corrupted[5], {name: np.concatenate([half[name] for half in halves]) for name in halves[0]})


MISTAKES = [
  (span_corruption, {"rate": 1.5}, "rate is 1.5, mean_span 3.0. rate must be between 0 and 1"),
  (span_corruption, {"max_length": 3}, "max_length is 3. It must be at least 4: a kept token"),
  (
    span_corruption,
    {"max_length": 3000},
    r"\d+ spans need as many sentinels, but there are 100. Lower max_length or rate",
  ),
  (span_corruption, {"max_length": 1790}, r"holds \d+ tokens, an example needs 1988. Lower data.max_length"),
  (prefix_lm, {"max_length": 1}, "max_length is 1. It must be at least 2"),
  (denoising, {"tokenizer": "gpt2"}, r"has no mask token. Choose another, e.g. sotu"),
  (
    denoising,
    {"mean_span": 0.0},
    "rate is 0.3, mean_span 0.0. rate must be at least 0 and below 1, mean_span above 0",
  ),
]


@pytest.mark.parametrize("make, options, message", MISTAKES)
def test_a_mistake_ends_in_one_line(make, options, message, source):
  with pytest.raises(UserError, match=message):
    make(source, **{"tokenizer": "bytes", **options})
