import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.quick_keys import quick_key
from tests.tiny import MASKED, drawn, tiny_batch
from zoo.config import registry
from zoo.errors import UserError
from zoo.objectives.causal_lm import causal_lm
from zoo.objectives.objective import value_and_grad
from zoo.perf import collectives, flops
from zoo.sharding import batch_sharding, make_mesh, shardings

TOWER = {"vocab_size": 23, "dim": 6, "depth": 1, "num_heads": 3, "dropout": 0.1}
TEXT = {**TOWER, "max_length": 11}
READS = {"name": "causal_lm"}
WRITES = {"name": "seq2seq", "label_smoothing": 0.1}
GUESSES = {"name": "masked_lm", "rate": 0.4, **MASKED}
BALANCES = {**READS, "balance": 0.1}
CASES = [
  ("gpt", TEXT, READS),
  ("openai_gpt", TEXT, READS),
  ("rnn", {"vocab_size": 23, "dim": 6, "depth": 2}, READS),
  ("llama", {**TEXT, "dim": 12, "mlp_dim": 7}, READS),
  ("gemma", {**TEXT, "dim": 12, "mlp_dim": 7, "cap": 0.5}, READS),
  ("mixtral", {**TEXT, "dim": 12, "mlp_dim": 7, "num_experts": 3, "top_k": 2}, BALANCES),
  ("reformer", {**TEXT, "local_chunk": 2, "lsh_chunk": 3}, READS),
  ("reformer", {**TEXT, "local_chunk": 2, "lsh_chunk": 3, "head": "mlm"}, GUESSES),
  ("xlnet", TOWER, {"name": "permutation_lm", "rate": 0.4}),
  ("transformer", TEXT, WRITES),
  ("t5", TOWER, WRITES),
  ("umt5", TOWER, WRITES),  # Its output layer is its own, as that of T5 1.1.
  ("bart", {**TEXT, "logits_bias": True}, WRITES),
  ("led", {**TEXT, "source_length": 13, "window": 4}, WRITES),
  ("marian", {**TEXT, "logits_bias": True}, {"name": "seq2seq"}),
  ("whisper", {**TEXT, "mels": 5, "source_length": 7}, WRITES),
  ("bert", {**TEXT, "head": "pretraining"}, {**GUESSES, "name": "bert_pretraining"}),
  ("distilbert", TEXT, GUESSES),
  ("roberta", {**TEXT, "pad": 1}, GUESSES),
  ("longformer", {**TEXT, "pad": 1, "window": 4}, GUESSES),
  ("mpnet", TEXT, GUESSES),
  ("modernbert", {**TEXT, "dim": 12, "mlp_dim": 7}, GUESSES),
]
RNG = quick_key(2)


def batch_for(family):
  """Eight rows; whisper hears where others read, and some cannot tell sentences apart."""
  batch = tiny_batch(rows=8)
  if family in ("distilbert", "roberta", "longformer", "mpnet", "reformer"):
    del batch["segments"]
  if family != "whisper":
    return batch
  heard = np.random.default_rng(0).normal(size=(8, 14, 5))
  return {name: x for name, x in batch.items() if name != "valid"} | {"tokens": jnp.array(heard, jnp.float32)}


def assert_close(got, want):
  largest = max(np.abs(x).max() for x in jax.tree.leaves(want))
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(b).max(), largest / 100))


@pytest.mark.parametrize("family, sizes, options", CASES, ids=[f"{case[0]}-{n}" for n, case in enumerate(CASES)])
def test_chunks_leave_loss_metrics_and_gradients_as_they_are_in_every_family(family, sizes, options):
  """With dropout, which is drawn alike. 24 tokens are 3 of each row, which divide hardly any of the lengths."""
  model, batch = zoo.build(family, **sizes), batch_for(family)
  plain = registry.build("objectives", options, model)
  chunked = registry.build("objectives", {**options, "chunk": 24}, model)
  params = drawn(plain, batch)
  both = jax.jit(lambda params, batch: [value_and_grad(form)(params, batch, RNG) for form in (plain, chunked)])
  want, got = both(params, batch)
  assert_close(got, want)
  assert sum(np.sum(np.square(x)) for x in jax.tree.leaves(want[1])) > 0.01**2


@functools.cache
def sharded(chunk, strategy, accumulate=1):
  """-> compiled gradient of a GPT with a large vocabulary on 4 x 2 devices, its arguments, its collectives."""
  mesh = make_mesh({"data": 4, "model": 2})
  by_row = batch_sharding(mesh)
  model = zoo.build("gpt", vocab_size=1000, max_length=17, dim=16, depth=1, num_heads=4)
  batch = {name: x for name, x in tiny_batch(8, 17, 1000).items() if name in ("tokens", "valid", "weight")}
  objective = causal_lm(model, chunk=chunk, by_row=by_row)
  params = drawn(objective, batch)
  placed = shardings(params, strategy, mesh)
  arguments = jax.device_put(params, placed), jax.device_put(batch, by_row)
  options = {"in_shardings": (placed, by_row), "out_shardings": (None, placed)}
  program = jax.jit(value_and_grad(objective, accumulate), **options).lower(*arguments).compile()
  return program, arguments, collectives.collectives(program.as_text(), mesh.shape)


@pytest.mark.parametrize("chunk, strategy, accumulate", [(24, "tensor", 1), (24, "fsdp+tensor", 1), (12, "fsdp", 2)])
def test_chunks_on_8_devices_give_the_loss_and_the_gradients_of_one_device(chunk, strategy, accumulate):
  program, (params, batch), _ = sharded(chunk, strategy, accumulate)
  model = zoo.build("gpt", vocab_size=1000, max_length=17, dim=16, depth=1, num_heads=4)
  want = jax.jit(value_and_grad(causal_lm(model)))(*jax.device_get((params, batch)))
  assert_close(program(params, batch), want)


@pytest.mark.parametrize("chunk", [None, 24])
def test_no_device_fetches_logits_of_a_vocabulary_that_is_split(chunk):
  """A device has 2 rows of 16 tokens and half of the vocabulary. Only sums over it travel, a number for each token."""
  _, _, gradients = sharded(chunk, "tensor")
  over_vocabulary = [one for one in gradients if "model" in one.axes]
  assert over_vocabulary and max(one.bytes for one in over_vocabulary) <= 2 * 16 * 48 * 4  # Attention's and the MLP's.
  fetched = [one.bytes for one in over_vocabulary if one.kind != "all-reduce"]
  assert fetched and max(fetched) <= 2 * 2 * 16 * 4  # Each half's likeliest token.


def test_what_is_learned_of_the_table_is_summed_over_devices_once_and_not_for_every_chunk():
  _, _, gradients = sharded(24, "tensor")
  table = [one for one in gradients if one.axes == ("data",) and one.bytes >= 500 * 16 * 4]
  assert [one.times for one in table] == [1]


def temporary(rows, length, chunk, vocab_size=8192):
  """Bytes that value and gradient of a GPT of no layers to speak of need."""
  model = zoo.build("gpt", vocab_size=vocab_size, max_length=length, dim=8, depth=1, num_heads=1)
  objective = causal_lm(model, chunk=chunk)
  batch = {"tokens": jax.ShapeDtypeStruct((rows, length + 1), jnp.int32)}
  params = jax.eval_shape(objective.init, jax.random.key(0), batch)
  return jax.jit(value_and_grad(objective)).lower(params, batch).compile().memory_analysis().temp_size_in_bytes


def test_in_chunks_no_more_logits_exist_than_those_of_a_chunk():
  whole, chunked = temporary(16, 64, None), temporary(16, 64, 64)
  logits = 16 * 64 * 8192 * 4
  assert whole > 2 * logits
  assert chunked < 0.5 * logits and chunked > 64 * 8192 * 4
  assert temporary(16, 128, 64) < 1.5 * chunked < 0.5 * temporary(16, 128, None)


def test_the_arithmetic_that_counts_is_the_same():
  """4 chunks of 4 tokens; what is computed again in the backward pass is no progress and is not counted."""
  model = zoo.build("gpt", vocab_size=23, max_length=17, dim=6, depth=1, num_heads=3)
  by_row, batch = batch_sharding(make_mesh({"data": 4, "model": 2})), tiny_batch(8, 17)
  params = jax.eval_shape(causal_lm(model).init, jax.random.key(0), batch)
  plain, chunked = (
    flops.count(causal_lm(model, chunk=chunk, by_row=by_row).loss, params, batch) for chunk in (None, 32)
  )
  assert plain == chunked


def test_mistakes_end_in_one_line():
  with pytest.raises(
    UserError, match="causal_lm.chunk is 0. It must be 1 or more: the number of tokens whose logits exist"
  ):
    causal_lm(zoo.build("gpt", **TEXT), chunk=0)
  for options, family, sizes in (
    (READS, "vit", None),
    (GUESSES, "bert", {"head": None}),
    (WRITES, "t5", {"head": None}),
  ):
    sizes = {"image_size": 6, "patch_size": 3, "dim": 6, "depth": 1, "num_heads": 3} if sizes is None else TEXT | sizes
    sizes = {name: x for name, x in sizes.items() if family != "t5" or name != "max_length"}
    more = {"vocab_size": 23} if family == "bert" else {}
    with pytest.raises(UserError, match=r"\.chunk needs a model that predicts tokens, \w+ does not. Choose another"):
      registry.build("objectives", {**options, **more, "chunk": 4}, zoo.build(family, **sizes))
