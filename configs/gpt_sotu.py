"""A small GPT (1.3 M) learns English from the State of the Union addresses, 1790 to 2026, split by document.

    python train.py --config=configs/gpt_sotu.py

About 10 CPU-minutes: 6 minutes on two cores. On the 11 held-out addresses: 1.613 bits per byte. In the same table
interpolated 5-grams (modified Kneser-Ney, counted on the same training text) reach 1.713 over bytes and 1.364 over
the same tokens: a model this small, trained this briefly, beats the first and not the second; configs/gpt_sotu_long.py
beats both. `samples.txt` shows samples.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 600,
      "batch_size": 16,
      "workdir": "runs/gpt_sotu",
      "model": {
        "family": "gpt",
        "vocab_size": 4096,
        "max_length": 128,
        "dim": 128,
        "depth": 4,
        "num_heads": 4,
      },
      "objective": {"name": "causal_lm"},
      "data": {"name": "language", "source": "tfds:sotu", "tokenizer": "sotu", "max_length": 129, "split": "train"},
      "optimizer": {
        "name": "muon",
        "rms": 1.0,
        "learning_rate": 2e-3,
        "schedule": "cosine",
        "warmup_steps": 50,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 300,
        "evaluators": {
          "test": {"name": "perplexity", "data": {"split": "test"}, "train_data": {"split": "train"}},
          "samples": {
            "name": "samples",
            "tokenizer": "sotu",
            "prompts": ["", "The war", "Our economy"],
            "max_new_tokens": 60,
          },
        },
      },
      "log": {"every": 50},
    }
  )
