"""The T5 of configs/t5_pretrain.py learns to say in a line what a function does, from the rest of its docstring.

    python scripts/fetch.py --only=summaries
    python train.py --config=configs/t5_pretrain.py
    python train.py --config=configs/t5_summarise.py

It starts from runs/t5_pretrain. The same steps from scratch, to compare with:

    python train.py --config=configs/t5_summarise.py --config.init=none --config.workdir=runs/t5_scratch

Not run to its end yet: no result is claimed.
"""

from ml_collections import ConfigDict

CACHE = "~/.cache/zoo/summaries"  # Where scripts/fetch.py leaves texts and tokenizer.


def get_config():
  docstrings = {
    "name": "text_pairs",
    "source": f"jsonl:{CACHE}",
    "tokenizer": f"{CACHE}/tokenizer.json",
    "max_length": 128,
    "target_length": 32,
    "prefix": "summarize: ",
  }
  return ConfigDict(
    {
      "seed": 0,
      "steps": 400,
      "batch_size": 32,
      "workdir": "runs/t5_summarise",
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
        "dropout": 0.1,
      },
      "init": "runs/t5_pretrain",
      "objective": {"name": "seq2seq", "label_smoothing": 0.1},
      "data": {**docstrings, "split": "train"},
      "optimizer": {
        "name": "adamw",
        "learning_rate": 2e-3,
        "schedule": "linear",
        "warmup_steps": 40,
        "clip_norm": 1.0,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 0,
        "evaluators": {
          "test": {
            "name": "generation",
            "data": {**docstrings, "split": "test"},
            "train_data": {**docstrings, "split": "train"},
            "batch_size": 50,
          },
        },
      },
      "log": {"every": 50},
    }
  )
