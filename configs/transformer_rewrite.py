"""A small original Transformer (1.4 M parameters) rewrites verses of the King James Version in Basic English.

    python scripts/fetch.py --only=rewrite
    python train.py --config=configs/transformer_rewrite.py

Sinusoidal positions, post-norm, one scaled matrix for both embeddings and the output, label smoothing, linear warm-up
and then inverse square root decay; https://arxiv.org/abs/1706.03762. Six books that no other book retells are
held out.

Three or four verses are packed into a row. About 37 CPU-minutes for 6.7 epochs, and 1 more to write the 1,522 held-out
verses. Until the third epoch the model only learns the language of the targets; then it begins to use the source.

| | BLEU | chrF | ROUGE-1 | ROUGE-2 | ROUGE-L |
|---|---|---|---|---|---|
| model | 25.2 | 44.1 | 57.1 | 32.7 | 51.5 |
| the same after 4,000 steps | 22.3 | 41.7 | 54.7 | 29.2 | 48.6 |
| copying the source | 22.7 | 43.5 | 53.9 | 29.0 | 50.3 |
| the most frequent target | 0.1 | 6.3 | 13.0 | 1.8 | 11.4 |

It has learnt the small vocabulary of Basic English, and drops or invents what it has rarely seen:

    There be four things which are little upon the earth, but they are exceeding wise:
    There are four things which are on the earth, but they are very wise:

    By this we know that we love the children of God, when we love God, and keep his commandments.
    By this we have knowledge that we have love for the children of God, when we have love for God and keep his orders.

    Better is a dry morsel, and quietness therewith, than an house full of sacrifices with strife.
    Hetter is a dry storts, and quietly, a house of burned offerings, and a house of full of offerings.
"""

from ml_collections import ConfigDict

CACHE = "~/.cache/zoo/rewrite"  # Where scripts/fetch.py saves verses and tokenizer.


def get_config():
  verses = {
    "name": "text_pairs",
    "source": f"jsonl:{CACHE}",
    "tokenizer": f"{CACHE}/tokenizer.json",
    "max_length": 96,
    "target_length": 96,
  }
  return ConfigDict(
    {
      "seed": 0,
      "steps": 6000,
      "batch_size": 8,
      "workdir": "runs/transformer_rewrite",
      "model": {
        "family": "transformer",
        "vocab_size": 4096,
        "max_length": 128,
        "dim": 128,
        "depth": 2,
        "num_heads": 4,
        "dropout": 0.1,
      },
      "objective": {"name": "seq2seq", "label_smoothing": 0.1},
      "data": {"name": "packed", "max_length": 128, "data": {**verses, "split": "train"}},
      "optimizer": {
        "name": "adamw",  # without decay: Adam
        "b2": 0.98,
        "eps": 1e-9,
        "learning_rate": 1.5e-3,
        "schedule": {"name": "inverse_sqrt", "timescale": 400},
        "warmup_steps": 400,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 0,
        "evaluators": {
          "test": {
            "name": "generation",
            "data": {**verses, "split": "test"},
            "train_data": {**verses, "split": "train"},
            "batch_size": 64,
          },
        },
      },
      "log": {"every": 50},
    }
  )
