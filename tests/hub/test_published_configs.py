"""config.json entries of the hub's most used models, in their original spelling."""

import json
import pathlib
import warnings

import pytest

from zoo.build import build
from zoo.convert.rules import reference
from zoo.convert.rules.options import Options
from zoo.hub import tables

CONFIGS = json.loads(pathlib.Path(__file__).with_name("published_configs.json").read_text())
# Those that no reference reads: ignored with a warning.
TOLD = {
  "ms-marco-MiniLM-L-6-v2": "sbert_ce_default_activation_function sentence_transformers",
  "dslim/bert-base-NER": "_num_labels",
  "distilbert-base-uncased": "tie_weights_",
  "distilbert-base-uncased-finetuned-sst-2-english": "tie_weights_",
  "roberta-large-mnli": "_num_labels",
  "distilgpt2": "_num_labels",
  "facebook/bart-large": "_num_labels",
  "facebook/bart-large-cnn": "_num_labels",
  "facebook/bart-large-mnli": "_num_labels",
  "facebook/bart-large-xsum": "_num_labels student_decoder_layers student_encoder_layers replacing_rate",
  "Helsinki-NLP/opus-mt-en-de": "_num_labels",
  "unsloth/Llama-3.2-1B-Instruct": "unsloth_fixed unsloth_version quantization_config",
  "HuggingFaceTB/SmolLM2-135M": "is_llama_config rope_interleaved",
  "Qwen/Qwen2.5-0.5B": "use_mrope",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_of_the_most_used_models_are_understood(name):
  config = CONFIGS[name]
  table = tables.of_model_type(config["model_type"], name)
  options = Options(config, name, reference=reference.of(config["model_type"]))
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    sizes = table.sizes(options, tables.choose_head(table, config, None, name), {})
    options.done()
  build(tables.family_of(table), **sizes)
  text = " ".join(str(one.message) for one in told)
  assert len(told) == (name in TOLD)
  assert all(f"{entry}=" in text for entry in TOLD.get(name, "").split())
