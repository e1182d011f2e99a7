import json

import pytest

import zoo
from zoo.errors import UserError
from zoo.hub.generation import options

BART, GPT = {"model_type": "bart"}, {"model_type": "gpt2"}


@pytest.mark.parametrize(
  "entries, config, wanted",
  [
    ({"eos_token_id": 2, "transformers_version": "4.1"}, GPT, {"eos": 2}),
    ({"max_length": 20, "min_length": 5, "min_new_tokens": 2}, BART, {"max_new_tokens": 19, "min_new_tokens": 2}),
    ({"max_length": 20, "min_length": 5}, BART, {"max_new_tokens": 19, "min_new_tokens": 4}),
    ({"max_length": 20, "max_new_tokens": 7}, {"is_encoder_decoder": True}, {"max_new_tokens": 7}),
    ({"do_sample": True, "top_p": 0.9, "eos_token_id": [1, 2]}, GPT,
     {"temperature": 1.0, "top_k": 50, "top_p": 0.9, "eos": [1, 2]}),
    ({"do_sample": True, "top_k": 0}, GPT, {"temperature": 1.0}),
    ({"temperature": 1.0, "top_k": 50, "num_beams": 1, "length_penalty": 1.0, "typical_p": 1.0}, GPT, {}),
    ({"suppress_tokens": [-1, 3], "forced_decoder_ids": [[1, None], [2, 9]]}, {"model_type": "whisper"},
     {"suppress": [3], "start_token": [50257, 9]}),
    ({"forced_bos_token_id": 7, "forced_decoder_ids": [[1, 9]]}, {"model_type": "whisper"},
     {"start_token": [50257, 9]}),
    ({"forced_bos_token_id": 7}, BART, {"forced": {0: 7}}),
    ({"bad_words_ids": [[4], [2]], "eos_token_id": 2, "pad_token_id": -1}, BART, {"eos": 2, "suppress": [4]}),
    ({"num_beams": 4, "num_return_sequences": 2, "early_stopping": "never"}, GPT,
     {"num_beams": 4, "num_return": 2, "early_stopping": "never"}),
  ],
)  # fmt: skip
def test_entries_become_keywords(entries, config, wanted):
  assert options(entries, config, "file") == wanted


@pytest.mark.parametrize(
  "entries, message",
  [
    ({"do_sample": True, "typical_p": 0.2}, "typical_p is 0.2, which zoo.generate does not support"),
    ({"stop_strings": ["."]}, "stop_strings is ['.'], which zoo.generate does not support. To load it without"),
    ({"cache_implementation": "quantized"}, "cache_implementation is 'quantized', which"),
    ({"early_stopping": "nan"}, "early_stopping is 'nan'. It must be true, false or 'never'"),
    ({"do_sample": True, "top_k": float("nan")}, "top_k is nan. It must be a number"),
    ({"do_sample": True, "temperature": float("inf")}, "temperature is inf. It must be a number"),
    ({"do_sample": True, "top_k": -1}, "top_k is -1. It must be an int of at least 0; 0 means all tokens"),
    ({"do_sample": True, "temperature": 0.0}, "temperature is 0.0. It must be above 0"),
    ({"do_sample": True, "top_p": 1.5}, "top_p is 1.5. It must be a probability"),
    ({"forced_bos_token_id": -1}, "forced_bos_token_id is [-1]. It must be a list of token ids"),
    ({"forced_decoder_ids": [[10**20, 5]]}, "forced_decoder_ids has [100000000000000000000, 5]"),
    ({"num_beams": 0}, "num_beams is 0. It must be at least 1"),
    ({"max_new_tokens": -3}, "max_new_tokens is -3. It must be at least 1"),
    ({"repetition_penalty": float("nan")}, "repetition_penalty is nan. It must be a number"),
    ({"num_beams": "4"}, "num_beams is '4'. It must be an int"),
    ({"num_beams": True}, "num_beams is True. It must be an int"),
    ({"eos_token_id": ["a"]}, "must be a list of token ids"),
    ({"begin_suppress_tokens": ["a"]}, "begin_suppress_tokens is ['a']. It must be a list of token ids"),
    ({"bad_words_ids": [[1, 2]]}, "suppresses single tokens"),
    ({"forced_decoder_ids": [[0, 2]]}, "a pair of a position"),
    ({"forced_eos_token_id": [1, 2]}, "forces one token"),
    (
      {"min_length": 3},
      "min_length is 3, which includes the prompt. Give load_generation_options prompt_length. Or use",
    ),
    ({"forced_decoder_ids": [[1, 2]]}, "forced_decoder_ids is [[1, 2]], which only Whisper uses"),
    ({"forced_bos_token_id": 9}, "forced_bos_token_id is 9. The reference uses it only after a prompt of one token"),
    ({"do_sample": True, "top_k": [1]}, "top_k is [1]"),
  ],
)
def test_what_cannot_be_done_is_refused_by_name(entries, message):
  with pytest.raises(UserError) as error:
    options(entries, GPT, "generation_config.json")
  assert message in str(error.value) and "\n" not in str(error.value)


def test_what_only_sampling_reads_is_ignored_without_it():
  drawn = {"temperature": 0.6, "top_k": 0, "min_p": 0.1, "typical_p": 0.2, "top_h": 0.4, "eta_cutoff": 0.3}
  message = "^file has temperature=0.6, top_k=0, .*typical_p=0.2.*: ignored, since do_sample is not true.$"
  for entries in (drawn, {"do_sample": False, **drawn}):
    with pytest.warns(UserWarning, match=message):
      assert options({"eos_token_id": 2, **entries}, GPT, "file") == {"eos": 2}


def test_lengths_of_a_decoder_count_its_prompt():
  both = {"max_length": 20, "min_length": 9}
  assert options(both, GPT, "file", prompt_length=7) == {"max_new_tokens": 13, "min_new_tokens": 2}
  assert options(both, GPT, "file", prompt_length=11) == {"max_new_tokens": 9}
  assert options(both | {"max_new_tokens": 3, "min_new_tokens": 1}, GPT, "file", 7)["max_new_tokens"] == 3
  assert options({"forced_bos_token_id": 4}, GPT, "file", 1) == {"forced": {0: 4}}
  assert options({"forced_bos_token_id": 4}, GPT, "file", 2) == {}
  for entries, config, length in (({"max_length": 7}, GPT, 7), ({"max_length": 1}, BART, None)):
    with pytest.raises(UserError, match=r"tokens before the first new one\."):
      options(entries, config, "file", length)
  with pytest.warns(
    UserWarning, match="^file: max_length is 20, which includes the prompt, so it is ignored. Give load_gen"
  ):
    assert options({"max_length": 20}, GPT, "file") == {}


def test_the_file_counts_before_the_config_and_a_run_says_nothing(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "eos_token_id": 3, "n_layer": 2}))
  assert zoo.load_generation_options(tmp_path) == {"eos": 3}
  (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 4}))
  assert zoo.load_generation_options(tmp_path) == {"eos": 4}
  (tmp_path / "generation_config.json").write_text("[")
  with pytest.raises(UserError, match=r"generation_config\.json"):
    zoo.load_generation_options(tmp_path)
