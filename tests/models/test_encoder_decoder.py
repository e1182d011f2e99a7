import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate import grow
from zoo.layers.stack import stack_layers

TOWER = dict(vocab_size=23, dim=6, depth=2, num_heads=3)
SIZES = {
  "t5": dict(TOWER, decoder_depth=1, head_dim=5, num_buckets=6, max_distance=5),
  "bart": dict(TOWER, max_length=11, decoder_heads=2),
  "marian": dict(TOWER, max_length=11, decoder_vocab_size=19),
  "transformer": dict(TOWER, decoder_mlp_dim=5),
  "whisper": dict(TOWER, source_length=7, max_length=11, mels=5, decoder_depth=1),
}
MODELS = {family: zoo.build(family, **sizes) for family, sizes in SIZES.items()}
PARAMS = {family: filled(model, *model.example()) for family, model in MODELS.items()}
FAMILIES = pytest.mark.parametrize("family", SIZES)
TEXTS = pytest.mark.parametrize("family", [family for family in SIZES if family != "whisper"])

RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, 23, (2, 7), np.int32)
FEATURES = RNG.standard_normal((2, 13, 5), np.float32)  # An odd number of frames.
ANSWER = RNG.integers(0, 19, (2, 6), np.int32)
VALID = np.array([[True] * 4 + [False] * 3, [True] * 7])
SOURCES = {family: FEATURES if family == "whisper" else TOKENS for family in SIZES}


def close(one, other):
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def changed(array, at, value):
  """A copy with `value` at this place of every row."""
  array = array.copy()
  array[:, at] = value
  return array


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "mutable"))
def compiled(model, params, *inputs, cache=None, method=None, mutable=False, **keywords):
  """`model.apply` as a program, which all tests of the module share."""
  variables = {"params": params} | ({} if cache is None else {"cache": cache})
  return model.apply(variables, *inputs, method=method, mutable=mutable, **keywords)


def apply(family, *inputs, model=None, params=None, **keywords):
  return jax.device_get(compiled(model or MODELS[family], params or PARAMS[family], *inputs, **keywords))


@functools.cache
def encode(family):
  return apply(family, SOURCES[family], valid=VALID, method="encode")


def decode(family, tokens, encoded, **keywords):
  return apply(family, tokens, encoded, **{"valid": VALID, "method": "decode", **keywords})


longer = jax.jit(grow, static_argnums=1)


@FAMILIES
def test_one_call_encodes_and_decodes(family):
  out = apply(family, SOURCES[family], ANSWER, valid=VALID)
  encoded = encode(family)
  close(out["encoded"], encoded)
  close(out["logits"], decode(family, ANSWER, encoded))
  assert out["logits"].dtype == jnp.float32 and encoded.shape == (2, 7, 6)
  assert out["logits"].shape == (2, 6, MODELS[family].vocab_size)


@FAMILIES
def test_the_decoder_does_not_see_the_future(family):
  encoded = encode(family)
  before, after = (decode(family, tokens, encoded) for tokens in (ANSWER, changed(ANSWER, 4, (ANSWER[:, 4] + 1) % 19)))
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert (abs(before - after)[:, 4:].max(-1) > 1e-4).all()


@TEXTS
def test_padding_of_what_is_encoded_changes_nothing_for_the_rest(family):
  encoded = encode(family)
  close(encoded[:1, :4], apply(family, TOKENS[:1, :4], method="encode"))
  short = apply(family, ANSWER[:1], encoded[:1, :4], method="decode")
  close(decode(family, ANSWER, encoded)[:1], short)


@FAMILIES
def test_padding_of_what_is_decoded_changes_nothing_for_the_rest(family):
  encoded = encode(family)
  padded = np.concatenate([np.full((2, 2), 7), ANSWER], 1)
  decoder_valid = np.broadcast_to(np.arange(8) >= 2, (2, 8))
  out = decode(family, padded, encoded, decoder_valid=decoder_valid, positions=np.maximum(np.arange(8) - 2, 0)[None])
  close(out[:, 2:], decode(family, ANSWER, encoded))


@FAMILIES
def test_logits_where_asked_are_those_of_the_whole(family):
  encoded, predict = encode(family), np.array([[3, 0], [5, 5]])
  whole = decode(family, ANSWER, encoded)
  close(decode(family, ANSWER, encoded, predict=predict), np.take_along_axis(whole, predict[:, :, None], 1))


@pytest.mark.parametrize("family, scan", [*((family, False) for family in SIZES), ("t5", True), ("bart", True)])
def test_cached_decoding_equals_the_full_pass(family, scan):
  # The first answer is a token shorter and padded to the left; the encoder's padding is that of VALID.
  decoder_valid = np.arange(6) >= np.array([[1], [0]])
  positions = np.maximum(np.cumsum(decoder_valid, 1) - 1, 0)
  encoded = encode(family)
  full = decode(family, ANSWER, encoded, decoder_valid=decoder_valid, positions=positions)

  model = zoo.build(family, **SIZES[family], scan=scan)
  params = stack_layers(PARAMS[family]) if scan else PARAMS[family]
  keywords = dict(model=model, params=params, mutable="cache")
  first = dict(decoder_valid=decoder_valid[:, :2], positions=positions[:, :2])
  out, state = decode(family, ANSWER[:, :2], encoded, **keywords, **first)
  outs, cache = [out], longer(state["cache"], 4)
  nothing = np.full_like(encoded, np.nan)  # Keys and values of the context are in the cache.
  for at in (slice(2, 3), slice(3, 6)):
    step = dict(cache=cache, positions=positions[:, at])
    out, state = decode(family, ANSWER[:, at], nothing, **keywords, **step)
    cache = state["cache"]
    outs.append(out)
  close(np.concatenate(outs, 1)[0, 1:], full[0, 1:])
  close(np.concatenate(outs, 1)[1], full[1])
  assert set(cache) == {"decoder"}


@FAMILIES
def test_only_the_decoder_keeps_a_cache(family):
  call = functools.partial(compiled, MODELS[family], mutable="cache")
  _, state = jax.eval_shape(call, PARAMS[family], SOURCES[family], ANSWER)
  assert set(state["cache"]) == {"decoder"}


# Two pairs in one row of 7 and 6 tokens, and a place of padding at the end of either.
PACKED = dict(
  valid=np.array([[True] * 6 + [False]]),
  segment_ids=np.array([[1, 1, 2, 2, 2, 2, 0]]),
  decoder_segment_ids=np.array([[1, 1, 1, 2, 2, 0]]),
)


@TEXTS
def test_a_pair_in_a_packed_row_is_what_it_is_alone(family):
  out = apply(family, TOKENS[:1], ANSWER[:1], **PACKED)
  for source, target in ((slice(0, 2), slice(0, 3)), (slice(2, 6), slice(3, 5))):
    alone = apply(family, TOKENS[:1, source], ANSWER[:1, target])
    close(out["encoded"][:, source], alone["encoded"])
    close(out["logits"][:, target], alone["logits"])


@TEXTS
@pytest.mark.parametrize("at, kept", [(0, slice(3, 5)), (5, slice(0, 3))])
def test_a_packed_pair_moves_no_other(family, at, kept):
  """Exactly: not an output of the other pair differs when a token of one side or the other is replaced."""
  before = apply(family, TOKENS[:1], ANSWER[:1], **PACKED)["logits"]
  other_source, other_target = changed(TOKENS[:1], at, 17), changed(ANSWER[:1], min(at, 4), 17)
  for tokens, answer in ((other_source, ANSWER[:1]), (TOKENS[:1], other_target)):
    after = apply(family, tokens, answer, **PACKED)["logits"]
    np.testing.assert_array_equal(after[:, kept], before[:, kept])
    assert abs(after - before).max() > 1e-4


def test_half_of_what_packing_needs_is_refused():
  keywords = {name: x for name, x in PACKED.items() if name != "decoder_segment_ids"}
  with pytest.raises(ValueError, match="segment_ids and decoder_segment_ids go together. Give both, or neither"):
    apply("t5", TOKENS[:1], ANSWER[:1], **keywords)
  with pytest.raises(ValueError, match="Packed sequences cannot be cached"):
    apply("t5", TOKENS[:1], ANSWER[:1], **PACKED, mutable="cache")
  with pytest.raises(
    ValueError, match="Recordings cannot be packed: Whisper's convolutions would mix them. Give each its own row"
  ):
    apply("whisper", FEATURES[:1], ANSWER[:1], **PACKED)


def test_positions_count_from_the_cache_where_only_distances_matter():
  encoded = encode("t5")
  out, state = decode("t5", ANSWER[:, :2], encoded, mutable="cache")
  rest, _ = decode("t5", ANSWER[:, 2:], encoded, cache=longer(state["cache"], 4), mutable="cache")
  close(np.concatenate([out, rest], 1), decode("t5", ANSWER, encoded))


def test_a_cache_needs_positions_elsewhere():
  encoded = encode("bart")
  _, state = decode("bart", ANSWER[:, :2], encoded, mutable="cache")
  with pytest.raises(ValueError, match="Decoding with a cache needs positions"):
    decode("bart", ANSWER[:, 2:], encoded, cache=state["cache"], mutable="cache")


def test_a_text_without_a_text_to_continue_continues_itself():
  model = zoo.build("bart", **TOWER, max_length=11, head="classify", num_classes=3)
  params = filled(model, *model.example())
  shifted = np.concatenate([np.full((2, 1), model.start_token, np.int32), TOKENS[:, :-1]], 1)
  close(compiled(model, params, TOKENS)["logits"], compiled(model, params, TOKENS, shifted)["logits"])


def test_a_text_is_classified_at_its_last_eos():
  model = zoo.build("t5", **TOWER, head="classify", num_classes=3, eos=1)
  logits = lambda *args, **keywords: compiled(model, filled(model, *model.example()), *args, **keywords)["logits"]
  at_4 = changed(np.where(TOKENS == 1, 2, TOKENS), [1, 4], 1)
  out = logits(at_4)
  np.testing.assert_array_equal(out, logits(at_4, decoder_tokens=None, valid=np.ones((2, 7), bool)))
  # What the decoder is given after the eos is not read.
  keywords = np.concatenate([np.zeros((2, 1), np.int32), at_4[:, :-1]], 1)
  close(logits(at_4, changed(keywords, slice(5, None), 9)), out)


def test_a_model_without_the_head_does_not_decode():
  model = zoo.build("t5", **TOWER, head=None)
  params = filled(model, *model.example())
  with pytest.raises(ValueError, match="does not predict tokens. Build it with head='lm'"):
    compiled(model, params, ANSWER, np.zeros((2, 7, 6), np.float32), method="decode")


def test_a_text_longer_than_max_length_is_refused():
  for family in ("bart", "marian"):
    with pytest.raises(ValueError, match="length 12 exceeds max_length 11"):
      apply(family, np.zeros((1, 12), np.int32), ANSWER[:1])


def test_buckets_that_are_too_few_or_end_too_early_are_refused():
  for sizes in (dict(num_buckets=3), dict(num_buckets=32, max_distance=16)):
    with pytest.raises(UserError, match="t5: num_buckets is .*num_buckets must be at least 4"):
      zoo.build("t5", **TOWER, **sizes)
