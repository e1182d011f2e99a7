"""`generate` against that of transformers, token by token, with tiny random models."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

import zoo
from tests.convert.parity import Case, reference

EOS, PAD = 5, 1
TOWERS = dict(
  d_model=12, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3, decoder_attention_heads=2,
  encoder_ffn_dim=20, decoder_ffn_dim=17, decoder_start_token_id=2, pad_token_id=PAD, eos_token_id=EOS,
)  # fmt: skip
CASES = {
  "gpt": ("GPT2LMHeadModel", "GPT2Config", dict(vocab_size=43, n_positions=60, n_embd=12, n_layer=2, n_head=3)),
  "llama": (
    "LlamaForCausalLM", "LlamaConfig",
    dict(vocab_size=37, max_position_embeddings=70, hidden_size=12, intermediate_size=19, num_hidden_layers=2,
         num_attention_heads=3, num_key_value_heads=1, head_dim=6),
  ),
  "mistral": (
    "MistralForCausalLM", "MistralConfig",
    dict(vocab_size=37, max_position_embeddings=70, hidden_size=12, intermediate_size=19, num_hidden_layers=3,
         num_attention_heads=2, num_key_value_heads=2, head_dim=4, sliding_window=5),
  ),
  "t5": (
    "T5ForConditionalGeneration", "T5Config",
    dict(vocab_size=31, d_model=12, d_kv=5, d_ff=30, num_layers=2, num_heads=3,
         decoder_start_token_id=0, pad_token_id=PAD, eos_token_id=EOS),
  ),
  "umt5": (
    "UMT5ForConditionalGeneration", "UMT5Config",
    dict(vocab_size=31, d_model=12, d_kv=5, d_ff=30, num_layers=2, num_heads=3,
         decoder_start_token_id=0, pad_token_id=PAD, eos_token_id=EOS),
  ),
  "bart": (
    "BartForConditionalGeneration", "BartConfig",
    dict(vocab_size=29, max_position_embeddings=50, scale_embedding=True, **TOWERS),
  ),
  "marian": (
    "MarianMTModel", "MarianConfig", dict(vocab_size=41, decoder_vocab_size=41, max_position_embeddings=50, **TOWERS),
  ),
  "whisper": (
    "WhisperForConditionalGeneration", "WhisperConfig",
    dict(vocab_size=47, num_mel_bins=8, max_source_positions=9, max_target_positions=45, **TOWERS),
  ),
}  # fmt: skip
DECODERS = ("gpt", "llama", "mistral")
LENGTHS = (7, 4, 1)  # of the texts of a batch


@functools.cache
def pair(name):
  """The reference model, and ours loaded from its files."""
  import tempfile

  cls, config_cls, config = CASES[name]

  def livelier(model):
    """Layers outweigh the vector of the last token, and no token is louder than the others: else all repeat one."""
    for label, parameter in model.named_parameters():
      if label.endswith("bias"):
        parameter.sub_(1)
      elif parameter.ndim > 1 and parameter.shape[0] == config["vocab_size"]:
        parameter.div_(parameter.norm(dim=1, keepdim=True))
      elif not label.endswith(("v_proj.weight", "out_proj.weight")):
        parameter.mul_(3 if parameter.ndim > 1 else 1)
    for tower in (model.get_encoder(), model.get_decoder()) if name == "marian" else ():
      tower.embed_positions.weight.copy_(tower.embed_positions.create_weight())
    if hasattr(model, "final_logits_bias"):
      model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))

  there = reference(Case(name, cls, config_cls, config, None, None, {}, prepare=livelier), seed=3)
  with tempfile.TemporaryDirectory() as folder:
    there.save_pretrained(folder)
    return there, *zoo.load(folder)


def batch(name, vocab_size):
  """Texts of several lengths, padded left for decoders, as the reference wants it, else right; or recordings."""
  rng = np.random.default_rng(4)
  if name == "whisper":
    return rng.normal(size=(3, 18, 8)).astype(np.float32), None
  longest = max(LENGTHS)
  valid = np.array([np.arange(longest) < length for length in LENGTHS])
  valid = valid[:, ::-1].copy() if name in DECODERS else valid
  return np.where(valid, rng.integers(6, vocab_size, valid.shape), PAD), valid


def theirs(name, new, **options):
  there, model, _ = pair(name)
  tokens, valid = batch(name, model.vocab_size)
  start = dict(decoder_start_token_id=there.config.decoder_start_token_id) if name not in DECODERS else {}
  settings = {"max_new_tokens": new, "do_sample": False, "pad_token_id": PAD, "eos_token_id": EOS, **start, **options}
  config = transformers.GenerationConfig(**settings)
  there.generation_config = config
  inputs = torch.from_numpy(tokens.swapaxes(1, 2) if name == "whisper" else tokens)
  more = {} if valid is None else {"attention_mask": torch.from_numpy(valid.astype(np.int64))}
  # Whisper's own `generate` cuts recordings into pieces; what it calls for each is this.
  return transformers.GenerationMixin.generate(there, inputs, config, **more)


def ours(name, new, **options):
  _, model, params = pair(name)
  tokens, valid = batch(name, model.vocab_size)
  keywords = {"max_new_tokens": new, "pad": PAD, "eos": EOS, **options}
  return zoo.generate(model, params, tokens, valid=None if valid is None else jnp.asarray(valid), **keywords)


def same(sequences, wanted):
  """Asserts equal sequences; ours are padded further, since the reference stops when all have ended."""
  sequences, wanted = np.asarray(sequences), np.asarray(wanted)
  sequences = sequences.reshape(-1, sequences.shape[-1])
  np.testing.assert_array_equal(sequences[:, : wanted.shape[1]], wanted)
  assert (sequences[:, wanted.shape[1] :] == PAD).all()


@pytest.mark.parametrize("name", CASES)
def test_greedy_texts_are_those_of_the_reference(name):
  wanted = theirs(name, 21)
  assert len(np.unique(wanted)) > 3
  same(ours(name, 21), wanted)


BEAMS = {
  "plain": dict(num_beams=3),
  "n best, long": dict(num_beams=4, num_return=3, length_penalty=2.0, early_stopping="never"),
  "soon, short": dict(num_beams=2, num_return=2, length_penalty=-0.7, early_stopping=True),
}


# Every family with one kind, and by their order every kind with decoders and with encoder-decoders.
KINDS = [*zip(CASES, [*BEAMS] * 3)]


def test_every_kind_of_beams_is_compared_with_and_without_an_encoder():
  assert {(kind, name in DECODERS) for name, kind in KINDS} == {(kind, alone) for kind in BEAMS for alone in (0, 1)}


@pytest.mark.parametrize("name, kind", KINDS)
def test_beams_are_those_of_the_reference(name, kind):
  check_beams(name, kind)


@pytest.mark.parametrize("name", ["gpt", "t5"])
@pytest.mark.parametrize("kind", [*BEAMS][1:])
def test_every_kind_of_beams_is_that_of_the_reference_in_one_decoder_and_one_encoder_decoder(name, kind):
  check_beams(name, kind)


def check_beams(name, kind):
  options = {"eos": [EOS, 9, 13]} | BEAMS[kind]
  renamed = {"num_return": "num_return_sequences", "eos": "eos_token_id"}
  more = {"return_dict_in_generate": True, "output_scores": True}
  wanted = theirs(name, 15, **{renamed.get(key, key): value for key, value in options.items()}, **more)
  sequences, scores = ours(name, 15, **options, return_scores=True)
  same(sequences, wanted.sequences)
  np.testing.assert_allclose(scores.reshape(-1), wanted.sequences_scores, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name, beams", [("gpt", 1), ("llama", 3), ("t5", 3), ("bart", 1), ("whisper", 1)])
def test_rules_are_those_of_the_reference(name, beams):
  decodes = name in DECODERS
  options = dict(
    repetition_penalty=1.4, min_new_tokens=9, num_beams=beams, forced={} if decodes else {0: 11}, suppress=[PAD, 7],
    suppress_first=[8, 10], no_repeat_ngram=2,
  )  # fmt: skip
  options["forced"] |= {-1: EOS}
  wanted = theirs(
    name, 17, repetition_penalty=1.4, min_new_tokens=9, num_beams=beams, suppress_tokens=[PAD, 7],
    begin_suppress_tokens=[8, 10], no_repeat_ngram_size=2, forced_eos_token_id=EOS,
    **({} if decodes else {"forced_bos_token_id": 11}),
  )  # fmt: skip
  same(ours(name, 17, **options), wanted)


STATED = {
  "gpt": dict(eos_token_id=[EOS, 9], repetition_penalty=1.3, suppress_tokens=[7], max_new_tokens=19),
  "bart": dict(
    eos_token_id=EOS, num_beams=3, length_penalty=2.0, no_repeat_ngram_size=2, forced_bos_token_id=11, min_length=7,
    forced_eos_token_id=EOS, max_length=17, early_stopping=True, bad_words_ids=[[PAD], [8]],
  ),
  "t5": dict(decoder_start_token_id=7, eos_token_id=EOS, max_new_tokens=13),
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_what_files_say_of_generation_counts_as_it_does_for_the_reference(name, tmp_path):
  there, model, params = pair(name)
  there.config.save_pretrained(tmp_path)
  (tmp_path / "generation_config.json").write_text(json.dumps({"pad_token_id": PAD, **STATED[name]}))
  options = zoo.load_generation_options(tmp_path)
  tokens, valid = batch(name, model.vocab_size)
  sequences = zoo.generate(model, params, tokens, valid=None if valid is None else jnp.asarray(valid), **options)
  settings = {**STATED[name], **({"max_new_tokens": None} if "max_length" in STATED[name] else {})}
  same(sequences, theirs(name, settings.pop("max_new_tokens", None), **settings))


@pytest.mark.parametrize("config_cls", sorted({config_cls for _, config_cls, _ in CASES.values()}))
def test_a_short_config_generates_with_the_defaults_of_its_class(config_cls, tmp_path):
  config = getattr(transformers, config_cls)()
  (tmp_path / "config.json").write_text(json.dumps({"model_type": config.model_type}))
  wanted = transformers.GenerationConfig.from_model_config(config)
  sequences = zoo.load_generation_options(tmp_path)
  assert sequences.get("eos") == wanted.eos_token_id is not None
  assert (
    sequences.get("pad") == wanted.pad_token_id and sequences.get("forced", {}).get(-1) == wanted.forced_eos_token_id
  )
  start = sequences.get("start_token", wanted.decoder_start_token_id)
  assert (start[0] if isinstance(start, list) else start) == wanted.decoder_start_token_id
  assert sequences.get("suppress_first", []) == (wanted.begin_suppress_tokens or [])
  (tmp_path / "config.json").write_text(json.dumps({"model_type": config.model_type, "eos_token_id": None}))
  assert "eos" not in zoo.load_generation_options(tmp_path)
  (tmp_path / "config.json").write_text(json.dumps({"model_type": config.model_type}))
  (tmp_path / "generation_config.json").write_text(json.dumps({"num_beams": 2}))
  assert not {"eos", "pad", "forced"} & zoo.load_generation_options(tmp_path).keys()


LANGUAGES = dict(lang_to_id={"<|de|>": 30, "<|en|>": 31, "<|hi|>": 32}, task_to_id={"transcribe": 33, "translate": 34})
HEARD = {
  "detected language": dict(LANGUAGES, forced_decoder_ids=[[1, None], [2, 33]], no_timestamps_token_id=46),
  "detected, nothing forced": dict(LANGUAGES, begin_suppress_tokens=[4, 8], num_beams=2, length_penalty=2.0),
  "named language": dict(LANGUAGES, language="hindi", task="translate", no_timestamps_token_id=46, num_beams=3),
  "language alone": dict(LANGUAGES, language="<|en|>", suppress_tokens=[-1, 12], repetition_penalty=1.3),
  "task alone": dict(LANGUAGES, task="transcribe", max_length=None, max_new_tokens=9),
  "forced alone": dict(forced_decoder_ids=[[1, 30], [2, 33]], no_timestamps_token_id=46, min_length=9),
  "english": dict(forced_decoder_ids=[[1, 46]], no_timestamps_token_id=46, is_multilingual=False),
  "long": dict(max_length=60),
}


@pytest.mark.parametrize("name", HEARD)
def test_whisper_begins_as_its_files_say(name, tmp_path):
  there, model, params = pair("whisper")
  there.config.save_pretrained(tmp_path)
  stated = dict(pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=2, return_timestamps=False, max_length=17)
  stated = {key: value for key, value in (stated | HEARD[name]).items() if value is not None}
  (tmp_path / "generation_config.json").write_text(json.dumps(stated))
  sounds, _ = batch("whisper", model.vocab_size)
  options = zoo.load_generation_options(tmp_path)
  sequences = np.asarray(zoo.generate(model, params, sounds, **options))
  there.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path)
  features = torch.from_numpy(sounds.swapaxes(1, 2))
  wanted = there.generate(features, return_dict_in_generate=True)["sequences"].numpy()
  same(sequences, wanted)
