"""A small GPT on the State of the Union addresses."""

from ml_collections import ConfigDict


def get_config():
  text = {"name": "language", "source": "tfds:sotu", "tokenizer": "sotu", "max_length": 129}
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
      "data": {**text, "split": "train"},
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
          "test": {"name": "perplexity", "data": {**text, "split": "test"}, "train_data": {**text, "split": "train"}},
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
