"""Fine-tunes a published model, or a run of the zoo, on your own table; docs/finetuning.md has a line per task.

    python train.py --config=configs/finetune.py --config.init=FOLDER --config.task=classification \
      --config.data.source=csv:my.csv

Sizes, tokenizer, image preprocessing and head come from the folder, columns, classes and lengths from the data; each is
printed and saved in the run's config.json. Entries set here or on the command line take precedence.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 500,
      "batch_size": 16,
      "workdir": "runs/finetune",
      "init": None,
      "task": None,
      "model": {},
      "objective": {},
      "data": {},
      "optimizer": {
        "name": "adamw",
        "learning_rate": 5e-5,
        "warmup_steps": 50,
        "schedule": "linear",
        "weight_decay": 0.01,
        "clip_norm": 1.0,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {"every": 100, "evaluators": {}},
      "log": {"every": 10},
      "checkpoint": {"every": 100, "keep": 1},
    }
  )
