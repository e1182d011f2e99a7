"""GPT-2 (124 M) on OpenWebText or any other text that you have: the published recipe's batch, for a pod slice.

    python train.py --config=configs/gpt2_owt.py --config.data.source='jsonl:/data/owt/*.jsonl'

480 rows that each predict 1,024 tokens are 491,520 tokens a step; 19,500 steps are about 9.6 billion tokens, once
through OpenWebText. The data are yours to bring: JSON lines with a field `text`, text files, or a TFDS dataset
(`tfds:NAME`). One flag changes the sharding: `--config.sharding=fsdp`. Recipe: https://github.com/karpathy/nanoGPT. We
have not run it to its end: no result is claimed.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 19_500,
      "batch_size": 480,
      "workdir": "runs/gpt2_owt",
      "model": {"family": "gpt", "variant": "gpt2", "dtype": "bfloat16", "remat": "dots"},
      "objective": {"name": "causal_lm"},
      "data": {
        "name": "language",
        "source": "jsonl:data/owt/*.jsonl",
        "split": "train[:99%]",
        "tokenizer": "gpt2",
        "max_length": 1025,
      },
      "optimizer": {
        "name": "adamw",
        "learning_rate": 6e-4,
        "end": 0.1,
        "schedule": "cosine",
        "warmup_steps": 700,
        "weight_decay": 0.1,
        "decay": ["kernel", "embedding"],
        "clip_norm": 1.0,
        "b2": 0.95,
        "accumulate": 1,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 1000,
        "evaluators": {
          "test": {"name": "perplexity", "data": {"split": "train[99%:]"}, "batch_size": 64},
        },
      },
      "log": {"every": 20},
      "checkpoint": {"every": 1000, "best": "eval/test/loss", "best_mode": "min"},
    }
  )
