"""A small BERT on the State of the Union addresses: masked words and next sentences, split by document.

    python train.py --config=configs/bert_sotu.py

About 8 CPU-minutes. Not run to its end yet: no result is claimed.
"""

from ml_collections import ConfigDict


def get_config():
  text = {"name": "sentence_pairs", "source": "tfds:sotu", "tokenizer": "bert", "max_length": 96}
  return ConfigDict(
    {
      "seed": 0,
      "steps": 600,
      "batch_size": 32,
      "workdir": "runs/bert_sotu",
      "model": {
        "family": "bert",
        "vocab_size": 30522,
        "max_length": 96,
        "dim": 128,
        "depth": 3,
        "num_heads": 4,
        "dropout": 0.0,
      },
      "objective": {"name": "bert_pretraining", "mask_token": 103, "special_tokens": [0, 101, 102]},
      "data": {**text, "split": "train"},
      "optimizer": {
        "name": "muon",
        "rms": 1.0,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "schedule": "linear",
        "weight_decay": 0.01,
        "clip_norm": 1.0,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 300,
        "evaluators": {"test": {"name": "masked_lm_accuracy", "data": {**text, "split": "test"}}},
      },
      "log": {"every": 50},
    }
  )
