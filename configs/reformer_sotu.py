"""A small Reformer (0.5 M) learns the State of the Union addresses byte by byte, in rows of 8,192.

    python train.py --config=configs/reformer_sotu.py

About 15 CPU-minutes for .6 epochs, a second per row. On the 11 held-out addresses: 2.639 bits per byte. In the same
table 5-grams over bytes have 1.713, which so short a run does not reach. It has 2.952 and 2.747 after 250 and 500 steps
at the full learning rate; what a longer one reaches, `--config.steps`, is not measured.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 760,
      "batch_size": 1,
      "workdir": "runs/reformer_sotu",
      "model": {
        "family": "reformer",
        "vocab_size": 260,
        "max_length": 8192,
        "dim": 96,
        "depth": 4,
        "num_heads": 2,
        "mlp_dim": 384,
        "pattern": ["local", "lsh"],
        "axial_shape": [64, 128],
        "axial_dims": [32, 64],
      },
      "objective": {"name": "causal_lm", "chunk": 2048},
      "data": {"name": "language", "source": "tfds:sotu", "tokenizer": "bytes", "max_length": 8193, "split": "train"},
      "optimizer": {
        "name": "muon",
        "rms": 0.5,
        "learning_rate": 6e-3,
        "schedule": {"name": "wsd", "decay_steps": 200},
        "warmup_steps": 20,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 0,
        "evaluators": {
          "test": {"name": "perplexity", "data": {"split": "test"}, "train_data": {"split": "train"}},
        },
      },
      "log": {"every": 10},
    }
  )
