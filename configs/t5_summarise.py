"""The T5 of configs/t5_pretrain.py learns to say in a line what a function does, from the rest of its docstring.

    python scripts/fetch.py --only=summaries
    python train.py --config=configs/t5_pretrain.py
    python train.py --config=configs/t5_summarise.py

It starts from runs/t5_pretrain. The same steps from scratch, to compare with:

    python train.py --config=configs/t5_summarise.py --config.init=none --config.workdir=runs/t5_scratch

About 4 CPU-minutes. It does better than the baselines but for ROUGE-2, where copying finds more pairs of words. So
short a pretraining takes 0.2 off the 4.3 nats per token of the last steps, and hardly shows in the scores. The model
knows what summaries sound like ("Returns the graph G."), not yet how to tell what a docstring is about; raise `steps`
of both.

| | BLEU | chrF | ROUGE-1 | ROUGE-2 | ROUGE-L |
|---|---|---|---|---|---|
| model | 1.9 | 13.3 | 14.1 | 2.4 | 13.5 |
| from scratch | 1.9 | 12.4 | 13.8 | 2.5 | 13.3 |
| the text itself | 0.7 | 12.4 | 12.3 | 3.9 | 9.8 |
| the most frequent summary | 0.1 | 12.9 | 2.8 | 0.1 | 2.5 |

To learn both at once and not one after the other, give `data` the pipeline `mixture`; see zoo/data/mixture.py.
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
      "steps": 500,
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
        "name": "adafactor",
        "learning_rate": 0.02,
        "schedule": "linear",
        "warmup_steps": 50,
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
