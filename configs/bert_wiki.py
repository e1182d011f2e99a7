"""BERT-base on Wikipedia or any other documents that you have, with masked words and next sentences, for a pod slice.

    python train.py --config=configs/bert_wiki.py --config.data.source='jsonl:/data/wiki/*.jsonl'

256 rows of 512 tokens for 1,000,000 steps (Devlin et al., 2018, appendix A.2: https://arxiv.org/abs/1810.04805). The
paper trains 90 % of the steps at 128 tokens: `--config.data.max_length=128 --config.steps=900000`, then on with
`--config.init`. A document is a JSON line with a field `text`. We have not run it to its end: no result is claimed.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 1_000_000,
      "batch_size": 256,
      "workdir": "runs/bert_wiki",
      "model": {"family": "bert", "variant": "base", "dropout": 0.1, "dtype": "bfloat16"},
      "objective": {"name": "bert_pretraining", "mask_token": 103, "special_tokens": [0, 101, 102]},
      "data": {
        "name": "sentence_pairs",
        "source": "jsonl:data/wiki/*.jsonl",
        "split": "train[:99%]",
        "tokenizer": "bert",
        "max_length": 512,
      },
      "optimizer": {
        "name": "adamw",
        "learning_rate": 1e-4,
        "schedule": "linear",
        "warmup_steps": 10_000,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "b2": 0.999,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 10_000,
        "evaluators": {
          "test": {"name": "masked_lm_accuracy", "data": {"split": "train[99%:]"}, "batch_size": 64},
        },
      },
      "log": {"every": 100},
      "checkpoint": {"every": 5000},
    }
  )
