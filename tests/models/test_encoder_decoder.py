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

TOKENS = jax.random.randint(jax.random.key(0), (2, 7), 0, 23)
FEATURES = jax.random.normal(jax.random.key(1), (2, 13, 5))  # An odd number of frames.
ANSWER = jax.random.randint(jax.random.key(2), (2, 6), 0, 19)
VALID = jnp.array([[True] * 4 + [False] * 3, [True] * 7])


def close(one, other):
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-5)


def encode(family, model=None, params=None):
  model, params = model or MODELS[family], params or PARAMS[family]
  source = FEATURES if family == "whisper" else TOKENS
  return jax.jit(lambda: model.apply({"params": params}, source, valid=VALID, method="encode"))()


def decode(family, tokens, encoded, *, model=None, params=None, cache=None, mutable=False, **given):
  model, params = model or MODELS[family], params or PARAMS[family]
  variables = {"params": params} | ({} if cache is None else {"cache": cache})
  given = {"valid": VALID, **given}
  run = lambda variables: model.apply(variables, tokens, encoded, mutable=mutable, method="decode", **given)
  return jax.jit(run)(variables)


@FAMILIES
def test_one_call_encodes_and_decodes(family):
  source = FEATURES if family == "whisper" else TOKENS
  out = MODELS[family].apply({"params": PARAMS[family]}, source, ANSWER, valid=VALID)
  encoded = encode(family)
  close(out["encoded"], encoded)
  close(out["logits"], decode(family, ANSWER, encoded))
  assert out["logits"].dtype == jnp.float32 and encoded.shape == (2, 7, 6)
  assert out["logits"].shape == (2, 6, MODELS[family].vocab_size)


@FAMILIES
def test_the_decoder_does_not_see_the_future(family):
  encoded = encode(family)
  before, after = (decode(family, tokens, encoded) for tokens in (ANSWER, ANSWER.at[:, 4].add(1) % 19))
  np.testing.assert_array_equal(before[:, :4], after[:, :4])
  assert (abs(before - after)[:, 4:].max(-1) > 1e-4).all()


@TEXTS
def test_padding_of_what_is_encoded_changes_nothing_for_the_rest(family):
  encoded = encode(family)
  model, params = MODELS[family], {"params": PARAMS[family]}
  close(encoded[:1, :4], model.apply(params, TOKENS[:1, :4], method="encode"))
  short = model.apply(params, ANSWER[:1], encoded[:1, :4], method="decode")
  close(decode(family, ANSWER, encoded)[:1], short)


@FAMILIES
def test_padding_of_what_is_decoded_changes_nothing_for_the_rest(family):
  encoded = encode(family)
  padded = jnp.concatenate([jnp.full((2, 2), 7), ANSWER], 1)
  own = jnp.broadcast_to(jnp.arange(8)[None] >= 2, (2, 8))
  out = decode(family, padded, encoded, decoder_valid=own, positions=jnp.maximum(jnp.arange(8) - 2, 0)[None])
  close(out[:, 2:], decode(family, ANSWER, encoded))


@FAMILIES
def test_logits_where_asked_are_those_of_the_whole(family):
  encoded, predict = encode(family), jnp.array([[3, 0], [5, 5]])
  whole = decode(family, ANSWER, encoded)
  close(decode(family, ANSWER, encoded, predict=predict), jnp.take_along_axis(whole, predict[:, :, None], 1))


@pytest.mark.parametrize("family, scan", [*((family, False) for family in SIZES), ("t5", True), ("bart", True)])
def test_cached_decoding_equals_the_full_pass(family, scan):
  # The first answer is a token shorter and padded to the left; the encoder's padding is that of VALID.
  own = jnp.ones((2, 6), bool).at[0, 0].set(False)
  positions = jnp.maximum(jnp.cumsum(own, 1) - 1, 0)
  encoded = encode(family)
  full = decode(family, ANSWER, encoded, decoder_valid=own, positions=positions)

  model = zoo.build(family, **SIZES[family], scan=scan)
  params = stack_layers(PARAMS[family]) if scan else PARAMS[family]
  given = dict(model=model, params=params, mutable=("cache",))
  first = dict(decoder_valid=own[:, :2], positions=positions[:, :2])
  out, state = decode(family, ANSWER[:, :2], encoded, **given, **first)
  outs, cache = [out], grow(state["cache"], 4)
  nothing = jnp.full_like(encoded, jnp.nan)  # Keys and values of the context are in the cache.
  for at in (slice(2, 3), slice(3, 6)):
    step = dict(cache=cache, positions=positions[:, at])
    out, state = decode(family, ANSWER[:, at], nothing, **given, **step)
    cache = state["cache"]
    outs.append(out)
  close(jnp.concatenate(outs, 1)[0, 1:], full[0, 1:])
  close(jnp.concatenate(outs, 1)[1], full[1])
  assert set(cache) == {"decoder"}


@FAMILIES
def test_only_the_decoder_keeps_a_cache(family):
  source = FEATURES if family == "whisper" else TOKENS
  _, state = MODELS[family].apply({"params": PARAMS[family]}, source, ANSWER, mutable=["cache"])
  assert set(state["cache"]) == {"decoder"}


# Two pairs in one row of 7 and 6 tokens, and a place of padding at the end of either.
PACKED = dict(
  valid=jnp.array([[True] * 6 + [False]]),
  segment_ids=jnp.array([[1, 1, 2, 2, 2, 2, 0]]),
  decoder_segment_ids=jnp.array([[1, 1, 1, 2, 2, 0]]),
)


def packed(family, tokens, answer, **given):
  model, params = MODELS[family], {"params": PARAMS[family]}
  return jax.jit(lambda tokens, answer: model.apply(params, tokens, answer, **given))(tokens, answer)


@TEXTS
def test_a_pair_in_a_packed_row_is_what_it_is_alone(family):
  out = packed(family, TOKENS[:1], ANSWER[:1], **PACKED)
  for source, target in ((slice(0, 2), slice(0, 3)), (slice(2, 6), slice(3, 5))):
    alone = packed(family, TOKENS[:1, source], ANSWER[:1, target])
    close(out["encoded"][:, source], alone["encoded"])
    close(out["logits"][:, target], alone["logits"])


@TEXTS
@pytest.mark.parametrize("changed, kept", [(0, slice(3, 5)), (5, slice(0, 3))])
def test_a_packed_pair_moves_no_other(family, changed, kept):
  """Exactly: not an output of the other pair differs when a token of one side or the other is replaced."""
  before = packed(family, TOKENS[:1], ANSWER[:1], **PACKED)["logits"]
  other_source, other_target = TOKENS[:1].at[:, changed].set(17), ANSWER[:1].at[:, min(changed, 4)].set(17)
  for tokens, answer in ((other_source, ANSWER[:1]), (TOKENS[:1], other_target)):
    after = packed(family, tokens, answer, **PACKED)["logits"]
    np.testing.assert_array_equal(after[:, kept], before[:, kept])
    assert abs(after - before).max() > 1e-4


def test_half_of_what_packing_needs_is_refused():
  given = {name: x for name, x in PACKED.items() if name != "decoder_segment_ids"}
  with pytest.raises(ValueError, match="Of segment_ids and decoder_segment_ids one is missing. Give both, or neither"):
    packed("t5", TOKENS[:1], ANSWER[:1], **given)
  with pytest.raises(ValueError, match="Texts that share a row are not kept in a cache"):
    packed("t5", TOKENS[:1], ANSWER[:1], **PACKED, mutable=["cache"])
  with pytest.raises(ValueError, match="Whisper's convolutions look beyond a recording's end. Give each its own row"):
    packed("whisper", FEATURES[:1], ANSWER[:1], **PACKED)


def test_positions_count_from_the_cache_where_only_distances_matter():
  encoded = encode("t5")
  out, state = decode("t5", ANSWER[:, :2], encoded, mutable=("cache",))
  rest, _ = decode("t5", ANSWER[:, 2:], encoded, cache=grow(state["cache"], 4), mutable=("cache",))
  close(jnp.concatenate([out, rest], 1), decode("t5", ANSWER, encoded))


def test_a_cache_needs_positions_elsewhere():
  encoded = encode("bart")
  _, state = decode("bart", ANSWER[:, :2], encoded, mutable=("cache",))
  with pytest.raises(ValueError, match="Decoding with a cache needs positions"):
    decode("bart", ANSWER[:, 2:], encoded, cache=state["cache"], mutable=("cache",))


def test_a_text_without_a_text_to_continue_continues_itself():
  model = zoo.build("bart", **TOWER, max_length=11, head="classify", num_classes=3)
  params = {"params": filled(model, *model.example())}
  shifted = jnp.concatenate([jnp.full((2, 1), model.start_token), TOKENS[:, :-1]], 1)
  close(model.apply(params, TOKENS)["logits"], model.apply(params, TOKENS, shifted)["logits"])


def test_a_text_is_classified_at_its_last_eos():
  model = zoo.build("t5", **TOWER, head="classify", num_classes=3, eos=1)
  params = {"params": filled(model, *model.example())}
  tokens = jnp.where(TOKENS == 1, 2, TOKENS)
  at_4 = tokens.at[:, 1].set(1).at[:, 4].set(1)
  out = model.apply(params, at_4)["logits"]
  np.testing.assert_array_equal(
    out, model.apply(params, at_4, decoder_tokens=None, valid=jnp.ones((2, 7), bool))["logits"]
  )
  # What the decoder is given after the eos is not read.
  given = jnp.concatenate([jnp.zeros((2, 1), jnp.int32), at_4[:, :-1]], 1)
  close(model.apply(params, at_4, given.at[:, 5:].set(9))["logits"], out)


def test_a_model_without_the_head_does_not_decode():
  model = zoo.build("t5", **TOWER, head=None)
  params = {"params": filled(model, *model.example())}
  with pytest.raises(ValueError, match="does not predict tokens. Build it with head='lm'"):
    model.apply(params, ANSWER, jnp.zeros((2, 7, 6)), method="decode")


def test_a_text_longer_than_max_length_is_refused():
  for family in ("bart", "marian"):
    with pytest.raises(ValueError, match="length 12 exceeds max_length 11"):
      MODELS[family].apply({"params": PARAMS[family]}, jnp.zeros((1, 12), jnp.int32), ANSWER[:1])


def test_buckets_that_are_too_few_or_end_too_early_are_refused():
  for sizes in (dict(num_buckets=3), dict(num_buckets=32, max_distance=16)):
    with pytest.raises(UserError, match="t5: num_buckets is .*There must be 4 buckets or more"):
      zoo.build("t5", **TOWER, **sizes)
