import json

import pytest

from zoo import compat
from zoo.compat.config import Config


def test_a_config_is_written_and_read_as_transformers_did(tmp_path):
  config = Config(d_model=8, output_attentions=True, vision_config={"patch_size": 4}, _name_or_path="somewhere")
  assert json.loads(config.to_json_string())["vision_config"] == {"patch_size": 4}
  assert "return_dict" not in Config(d_model=8, return_dict=True).to_diff_dict()
  assert Config(d_model=8, return_dict=True).to_dict()["return_dict"] is True
  assert json.loads(Config(return_dict=True).to_json_string(use_diff=False)) == {"return_dict": True}
  assert config.name_or_path == "somewhere" and config.to_diff_dict()["output_attentions"] is True
  config.update({"d_model": 16, "text_config": {"vocab_size": 3}})
  assert config.hidden_size == 16 and config.text_config.vocab_size == 3
  config.save_pretrained(tmp_path / "new")
  again = Config.from_pretrained(tmp_path / "new", d_model=5)
  assert again.d_model == 5 and again.vision_config.patch_size == 4
  assert Config.from_json_file(tmp_path / "new" / "config.json").to_dict() == config.to_dict()
  with pytest.raises(ValueError, match="push_to_hub is True"):
    config.save_pretrained(tmp_path, push_to_hub=True)
  with pytest.raises(ValueError, match="cannot be created"):
    config.save_pretrained(tmp_path / "new" / "config.json" / "below")


def test_what_a_config_does_not_say_has_the_value_that_it_had():
  config = Config(n_embd=7)
  assert (config.hidden_size, config.is_encoder_decoder, config.pad_token_id, config.use_cache) == (
    7,
    False,
    None,
    True,
  )
  with pytest.raises(AttributeError, match="no entry nonsense"):
    config.nonsense  # noqa: B018


def test_outputs_are_changed_by_name():
  out = compat.Output(logits=1, hidden_states=(2,))
  assert out.replace(logits=3, attentions=4) == {"logits": 3, "hidden_states": (2,), "attentions": 4}
  assert out.logits == 1
