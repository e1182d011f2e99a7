"""`generate` of an old Whisper by its old name, against torch's own."""

import json

import numpy as np
import pytest
import torch
import transformers

from tests.convert.test_generate import EOS, HEARD, LANGUAGES, PAD, batch, pair
from zoo import compat

# Arguments of `generate`, instead of generation_config.json.
TOLD = {
  "told in words": (dict(LANGUAGES, no_timestamps_token_id=46), dict(language="german", task="translate")),
  "told by token": (dict(LANGUAGES, task="transcribe"), dict(language="<|hi|>")),
}
SAID = {name: (HEARD[name], {}) for name in ("detected language", "named language", "forced alone", "english")} | TOLD


@pytest.mark.parametrize("name", SAID)
def test_an_old_whisper_writes_what_torch_writes(name, tmp_path):
  file, told = SAID[name]
  there, _, _ = pair("whisper")
  there.generation_config = transformers.GenerationConfig()
  there.save_pretrained(tmp_path)
  stated = dict(pad_token_id=PAD, eos_token_id=EOS, decoder_start_token_id=2, return_timestamps=False, **file)
  (tmp_path / "generation_config.json").write_text(json.dumps(stated))
  sounds = batch("whisper", 47)[0].swapaxes(1, 2)
  model = compat.FlaxWhisperForConditionalGeneration.from_pretrained(tmp_path)
  sequences = np.asarray(model.generate(sounds, max_length=19, **told).sequences)
  there.generation_config = transformers.GenerationConfig.from_pretrained(tmp_path)
  more = dict(max_new_tokens=19 - 4, return_dict_in_generate=True)  # torch's lengths exclude the start tokens.
  wanted = there.generate(torch.from_numpy(sounds.copy()), **told, **more)["sequences"].numpy()
  assert sequences.shape == (3, 19) and len(np.unique(wanted)) > 4
  length = min(wanted.shape[1], 18)
  np.testing.assert_array_equal(sequences[:, :length], wanted[:, :length])


def test_an_answer_that_its_beginning_fills_is_refused(tmp_path):
  there, _, _ = pair("whisper")
  there.save_pretrained(tmp_path)
  model = compat.FlaxWhisperForConditionalGeneration.from_pretrained(tmp_path)
  sounds = batch("whisper", 47)[0].swapaxes(1, 2)
  entries = dict(LANGUAGES, language="en", task="translate", no_timestamps_token_id=46, decoder_start_token_id=2)
  with pytest.raises(ValueError, match="4 tokens do not fit after the 4 that answers begin with. Ask for more."):
    model.generate(sounds, entries, max_length=4)
  with pytest.raises(ValueError, match="return_timestamps is True, which the zoo's models do not have"):
    model.generate(sounds, entries, return_timestamps=True)
