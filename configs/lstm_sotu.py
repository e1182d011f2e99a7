"""An LSTM (1.4 M) learns the State of the Union addresses, for contrast with configs/gpt_sotu.py and xl_sotu.py.

    python train.py --config=configs/lstm_sotu.py

Data, steps and optimizer are theirs, and it has about as many parameters. 4 CPU-minutes. Measured on the 11 held-out
addresses: 1.741 bits per byte, where gpt_sotu has 1.613 and xl_sotu 1.524.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 600,
      "batch_size": 16,
      "workdir": "runs/lstm_sotu",
      "model": {"family": "rnn", "vocab_size": 4096, "dim": 192, "depth": 2, "tied": True},
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
