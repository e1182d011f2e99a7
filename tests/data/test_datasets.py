import json

import pytest

import zoo
from zoo.errors import UserError


def test_data_are_loaded_by_the_name_of_their_source_or_as_a_run_reads_them(tmp_path):
  digits = zoo.load_data("tfds:digits", "test")
  section = {"name": "labelled_images", "source": "tfds:digits", "split": "train", "image_size": 14, "augment": []}
  (tmp_path / "config.json").write_text(json.dumps({"data": section}))
  assert len(digits) == len(zoo.load_data(tmp_path)) == len(zoo.load_data(section)) == 1000
  assert isinstance(digits[0]["image"], bytes) and zoo.load_data(tmp_path)[0]["image"].shape == (14, 14, 3)
  assert len(zoo.load_data(tmp_path, "train[:10]")) == 10
  with pytest.raises(UserError, match=r"has no config.json: it is not a run folder\."):
    zoo.load_data(tmp_path / "elsewhere")
