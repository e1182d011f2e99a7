import sys
import types

import pytest

from tests.hub_folder import published_bert
from zoo.errors import UserError
from zoo.hub.ids import folder_of


@pytest.fixture
def asked(tmp_path, monkeypatch):
  """What a hub is asked for that has one id, of which `text_encoder` holds a model and `old` one of Flax."""
  calls = []
  published_bert(tmp_path / "text_encoder")
  (tmp_path / "old").mkdir()

  def snapshot_download(repo, **options):
    calls.append((repo, options))
    return str(tmp_path)

  hub, errors = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.errors")
  hub.snapshot_download, errors.HfHubHTTPError = snapshot_download, type("HfHubHTTPError", (OSError,), {})
  monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
  monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
  return calls


def test_a_part_of_an_id_is_fetched_alone(asked, tmp_path):
  folder = folder_of("someone/flux@bf16", "text_encoder", cache_dir="here")
  assert folder == tmp_path / "text_encoder"
  ((repo, options),) = asked
  assert repo == "someone/flux" and options["revision"] == "bf16" and options["cache_dir"] == "here"
  assert all(pattern.startswith("text_encoder/") for pattern in options["allow_patterns"])


def test_old_flax_files_are_fetched_where_there_is_nothing_else(asked):
  folder_of("someone/flux", "old")
  assert [any("msgpack" in pattern for pattern in options["allow_patterns"]) for _, options in asked] == [False, True]


def test_a_part_that_is_not_there_is_told(asked):
  with pytest.raises(UserError, match="has no subfolder 'text_encoder_2'. It has: old, text_encoder"):
    folder_of("someone/flux", "text_encoder_2")
