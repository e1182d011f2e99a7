"""The zoo's table of config entries equals that of the installed reference; no other entry passes."""

import json

import pytest
import transformers

from scripts.reference_configs import FILE, facts, model_types, version
from tests.convert.options_hunt import RIGHT, Change, Hunt, cases
from zoo.convert.rules import options, reference

# Entries that ours honours and the reference does not. transformers 5 scales the logits of every UMT5, tied or not
# (findings/transformers_5_scales_the_logits_of_untied_umt5.sh); transformers 4 and T5X scale those of tied ones alone.
HONOURED_BY_OURS = {("UMT5Config", "tie_word_embeddings")}
# Classes that the reference derives from another's by name alone; the hunt by hand goes through them too.
COPIES = ("XLMRobertaConfig", "CamembertConfig", "MT5Config")
FIRST = {case.config_cls: case for case in reversed(cases()) if case.config_cls not in COPIES}


def test_the_table_is_that_of_the_installed_version():
  held = json.loads(FILE.read_text())
  assert held[version()] == json.loads(json.dumps(facts())), "run scripts/reference_configs.py"
  assert len(held) > 1
  assert set(model_types()) <= {name for section in held.values() for name in section["types"]}


def test_a_name_that_only_old_versions_read_is_known():
  assert reference.of("bert").changes("position_embedding_type", "relative_key")
  assert not reference.of("bert").changes("position_embedding_type", "absolute")
  assert not reference.of("bert").changes("is_causal", True) and reference.of("bert").changes("is_causal", None)


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("config", FIRST)
def test_no_entry_changes_the_reference_and_not_the_model(config, tmp_path):
  transformers.logging.set_verbosity(transformers.logging.CRITICAL)
  honoured = {name for kind, name in HONOURED_BY_OURS if kind == config}
  verdicts = [*Hunt(FIRST[config], tmp_path / "base").run(everything=False, alone=honoured)]
  wrong = [row for row in verdicts if row[2].split()[0] not in RIGHT and row[0] not in honoured]
  assert not wrong and len({verdict for *_, verdict in verdicts}) > 2


def test_of_changes_made_at_once_the_wrong_one_is_named(tmp_path, monkeypatch):
  hunt = Hunt(FIRST["LlamaConfig"], tmp_path / "base")
  values = {"hidden_act": "relu", "intermediate_size": 31, "rms_norm_eps": 0.1}
  changes = [Change((name,), value, {}) for name, value in values.items()]
  monkeypatch.setitem(options.ACTIVATIONS, "relu", "quick_gelu")
  assert [hunt.judge(change) for change in changes] == [None] * 3 and hunt.apart(changes)
  verdicts = {change.path[0]: verdict.split()[0] for change, verdict in hunt.together(changes, tmp_path / "other")}
  assert verdicts == {"hidden_act": "DIFFERENT", "intermediate_size": "honoured", "rms_norm_eps": "honoured"}
  assert not hunt.apart([changes[0], Change(("hidden_act",), "silu", {"activation": "silu"})])
