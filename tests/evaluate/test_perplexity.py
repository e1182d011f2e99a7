import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.evaluate.toys import Toy
from tests.filled import filled
from zoo.data.contiguous import contiguous
from zoo.data.language import language
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError
from zoo.evaluate.perplexity import as_bytes, perplexity, stream

VOCAB = 19


class Uniform:
  """Every next token is as likely as any other."""

  def __init__(self, vocab_size=VOCAB):
    self.vocab_size = vocab_size

  def apply(self, variables, tokens, *, valid=None, train=False, rngs=None):
    return jnp.zeros((*tokens.shape, self.vocab_size))


class Table:
  """params["logits"][last token] are the logits of the next one."""

  def apply(self, variables, tokens, *, valid=None, train=False, rngs=None):
    return variables["params"]["logits"][tokens]


def chunks(tokens, length, num_bytes):
  """A row of tokens as the pipeline `language` cuts it: each chunk begins with the end of the one before."""
  starts = range(0, len(tokens) - 1, length - 1)
  padded = np.array([[*tokens[i : i + length], *[0] * (i + length - len(tokens))] for i in starts], np.int32)
  valid = np.arange(length)[None] + np.array(starts)[:, None] < len(tokens)
  return Toy(tokens=padded, valid=valid, info={"bytes": num_bytes})


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_bits_per_byte_of_the_uniform_distribution_are_exact(batch_size):
  records = chunks(np.arange(15) % VOCAB, 5, 41)
  metrics = perplexity(Uniform(), data=records, batch_size=batch_size)({})
  assert metrics["tokens"] == 14
  assert metrics["perplexity"] == pytest.approx(VOCAB, rel=1e-6)
  assert metrics["bits_per_byte"] == pytest.approx(np.log2(VOCAB) * 14 / 41, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_every_token_after_the_first_counts_once_wherever_chunks_are_cut(batch_size):
  rng = np.random.default_rng(0)
  tokens, logits = rng.integers(0, VOCAB, 23), rng.normal(size=(VOCAB, VOCAB)).astype(np.float32)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  wanted = -log_p[tokens[:-1], tokens[1:]].mean()
  for length in (2, 3, 11, 23, 31):
    metrics = perplexity(Table(), data=chunks(tokens, length, 5), batch_size=batch_size)({"logits": jnp.array(logits)})
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.fixture
def texts(tmp_path):
  for split, sentence in (
    ("train", "the cat sat on the mat, and the dog sat on the log. " * 30),
    ("test", "the dog sat on the mat. "),
  ):
    (tmp_path / split).mkdir()
    for number in range(2):
      (tmp_path / split / f"{number}.txt").write_text(sentence + "caf\u00e9 " * number)
  options = {"tokenizer": "bytes", "max_length": 16, "cache": False}
  return {split: language(f"text:{tmp_path / split}", "train", **options) for split in ("train", "test")}


def test_the_stream_is_the_text_with_its_ends(texts):
  row = as_bytes(stream(texts["test"]), texts["test"].info["tokenizer"])
  documents = "".join("|" if symbol == 256 else chr(symbol) for symbol in row).split("|")
  assert sorted(documents) == ["", "", "the dog sat on the mat.", "the dog sat on the mat. caf\u00c3\u00a9"]
  assert sum(row < 256) == texts["test"].info["bytes"]


def test_n_grams_are_measured_on_the_same_bytes_and_beat_chance(texts):
  metrics = perplexity(Uniform(260), data=texts["test"], train_data=texts["train"])({})
  # Over bytes as tokens both baselines are the same model, but for tokens that never occur.
  assert metrics["bytes_5gram/bits_per_byte"] == pytest.approx(metrics["tokens_5gram/bits_per_byte"], rel=0.05)
  assert metrics["tokens_5gram/bits_per_byte"] < 2 < metrics["bits_per_byte"]
  per_byte = metrics["tokens_5gram/loss"] * metrics["tokens"] / np.log(2) / texts["test"].info["bytes"]
  assert metrics["tokens_5gram/bits_per_byte"] == pytest.approx(per_byte)


def test_other_tokens_in_training_are_refused(texts):
  other = Toy(tokens=np.zeros((1, 4), int), valid=np.ones((1, 4), bool), info={"tokenizer": tokenizer("gpt2")})
  with pytest.raises(UserError, match="data use the tokenizer bytes, train_data gpt2"):
    perplexity(Uniform(260), data=texts["test"], train_data=other)({})


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(texts):
  with pytest.raises(UserError, match="tokenizer bytes has 260 tokens, the model predicts 259"):
    perplexity(Uniform(259), data=texts["test"])({})
  with pytest.raises(UserError, match="the model's are 0 to 18. Is it another model's tokenizer?"):
    perplexity(Uniform(), data=texts["test"])({})


def test_a_memory_reads_a_row_as_one_pass_would(tmp_path):
  text = "".join(np.random.default_rng(0).choice(list("abcde "), 61))
  (tmp_path / "one.txt").write_text(text)
  options = dict(source="text:.", data_dir=str(tmp_path), tokenizer="bytes", cache=False)
  sizes = dict(vocab_size=260, dim=6, depth=2, num_heads=3, memory_length=5, same_length=True)
  model = zoo.build("transformer_xl", **sizes)
  params = filled(model, *model.example())
  records = contiguous(**options, max_length=9)
  measured = perplexity(model, data=records, batch_size=1)(params)
  whole = perplexity(model, data=language(**options, max_length=100), batch_size=1)(params)
  assert measured["tokens"] == whole["tokens"] > 55
  assert measured["loss"] == pytest.approx(whole["loss"], rel=1e-5)
  # Rows each begin with an empty memory: less is known of their first tokens, and each token still counts once.
  several = perplexity(model, data=records, batch_size=3)(params)
  assert several["tokens"] == whole["tokens"] and abs(several["loss"] - whole["loss"]) > 1e-4


def test_the_task_lets_a_memory_go_on_from_row_to_row(tmp_path):
  (tmp_path / "one.txt").write_text("".join(np.random.default_rng(0).choice(list("abcde "), 61)))
  model = zoo.build("transformer_xl", vocab_size=260, dim=6, depth=2, num_heads=3, memory_length=5)
  params = filled(model, *model.example())
  source = f"text:{tmp_path}/*.txt"
  measured = zoo.evaluate_model((model, params), task="perplexity", data=source, tokenizer="bytes", batch_size=2)
  records = contiguous(source, tokenizer="bytes", max_length=6, cache=False)
  assert measured["loss"] == pytest.approx(perplexity(model, data=records, batch_size=2)(params)["loss"], rel=1e-6)
