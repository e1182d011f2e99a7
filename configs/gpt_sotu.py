from ml_collections import ConfigDict


def get_config():
  text = {"name": "language", "source": "tfds:sotu", "tokenizer": "sotu", "max_length": 129}
  return ConfigDict(
    {
      "seed": 0,
      "steps": 3000,
      "batch_size": 16,
      "workdir": "runs/gpt_sotu",
      "model": {
        "family": "gpt",
        "vocab_size": 4097,
        "max_length": 128,
        "dim": 192,
        "depth": 4,
        "num_heads": 6,
      },
      "objective": {"name": "causal_lm"},
      "data": {**text, "split": "train"},
      "optimizer": {
        "name": "muon",
        "learning_rate": 2e-2,
        "schedule": "cosine",
        "warmup_steps": 100,
        "weight_decay": 0.01,
        "clip_norm": 1.0,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 1000,
        "evaluators": {
          "test": {"name": "perplexity", "data": {**text, "split": "test"}, "batch_size": 32, "baseline": True},
          "samples": {"name": "samples", "prompts": ["Fellow citizens", "The war", "Our economy"]},
        },
      },
      "log": {"every": 50},
    }
  )
