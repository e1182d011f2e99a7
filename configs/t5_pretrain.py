"""A small T5 (1.9 M) of version 1.1 learns to fill spans that docstrings have lost, before configs/t5_summarise.py.

    python scripts/fetch.py --only=summaries
    python train.py --config=configs/t5_pretrain.py

More than half of its parameters are the embedding and the output layer. It reads the bodies of docstrings without
their summaries, those of the training split alone.

Not run to its end yet: no result is claimed.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 600,
      "batch_size": 16,
      "workdir": "runs/t5_pretrain",
      "model": {
        "family": "t5",
        "vocab_size": 4196,
        "dim": 128,
        "depth": 2,
        "num_heads": 4,
        "mlp_dim": 256,
        "activation": "gelu_tanh",
        "gated": True,
        "tied": False,
      },
      "objective": {"name": "seq2seq"},
      "data": {
        "name": "span_corruption",
        "source": "jsonl:~/.cache/zoo/summaries",
        "split": "train",
        "tokenizer": "~/.cache/zoo/summaries/tokenizer.json",
        "text_field": "source",
        "max_length": 128,
      },
      "optimizer": {
        "name": "adamw",
        "learning_rate": 3e-3,
        "schedule": {"name": "inverse_sqrt", "timescale": 100},
        "warmup_steps": 100,
        "clip_norm": 1.0,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {"every": 0, "evaluators": {}},
      "log": {"every": 50},
    }
  )
