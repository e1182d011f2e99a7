"""A small Transformer-XL (1.4 M) learns the State of the Union addresses, and remembers what it has just read.

    python train.py --config=configs/xl_sotu.py

Data, steps and optimizer are those of configs/gpt_sotu.py, but rows go on from batch to batch, and each token attends
to 128 tokens of the segment before besides its own. About 12 CPU-minutes. Measured on the 11 held-out addresses: 1.524
bits per byte. Without a memory, `--config.model.memory_length=0`, it has 1.537, and gpt_sotu (1.3 M) has 1.613: the
relative positions gain more here than what is remembered.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 600,
      "batch_size": 16,
      "workdir": "runs/xl_sotu",
      "model": {
        "family": "transformer_xl",
        "vocab_size": 4096,
        "dim": 128,
        "depth": 4,
        "num_heads": 4,
        "memory_length": 128,
      },
      "objective": {"name": "causal_lm"},
      "data": {"name": "contiguous", "source": "tfds:sotu", "tokenizer": "sotu", "max_length": 129, "split": "train"},
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
