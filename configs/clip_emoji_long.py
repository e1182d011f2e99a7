"""As clip_emoji, with harder augmentation, a wider stem and 1,800 steps of 256 pairs.

    python train.py --config=configs/clip_emoji_long.py

About 25 CPU-minutes. Not run to its end yet: no result is claimed. `--config.data.source=tfds:emoji/style` with the
same source for the evaluator (`--config.eval.evaluators.retrieval.data.source` and `.train_data.source`) holds out a
whole style instead: OpenMoji is then never seen.
"""

from ml_collections import ConfigDict


def get_config():
  emoji = {
    "name": "image_text",
    "source": "tfds:emoji",
    "tokenizer": "clip",
    "max_length": 12,
    "image_size": 32,
    "cache": True,
  }
  return ConfigDict(
    {
      "seed": 0,
      "steps": 1800,
      "batch_size": 256,
      "workdir": "runs/clip_emoji_long",
      "model": {
        "family": "clip",
        "image_size": 32,
        "stem_dims": [32, 64],
        "patch_size": 8,
        "image_dim": 96,
        "image_depth": 2,
        "image_heads": 4,
        "text_dim": 96,
        "text_depth": 1,
        "text_heads": 4,
        "drop_path": 0.1,
        "embed_dim": 128,
        "vocab_size": 49408,
        "max_length": 12,
      },
      "objective": {"name": "contrastive"},
      "data": {
        **emoji,
        "split": "train",
        "augment": [
          {"name": "shift", "pixels": 4, "fill": "white"},
          {"name": "random_resized_crop", "scale": [0.45, 1.0], "ratio": [0.7, 1.4]},
          {"name": "flip"},
          {"name": "color", "hue": 0.1, "saturation": 0.4, "mix": 0.2},
          {"name": "outline_darken", "p": 0.4},
          {"name": "cutout", "p": 0.5, "pixels": 9, "fill": "white"},
        ],
      },
      "optimizer": {
        "name": "muon",
        "rms": 1.0,
        "learning_rate": 2e-3,
        "warmup_steps": 50,
        "schedule": "cosine",
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "b2": 0.98,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 900,
        "evaluators": {
          "retrieval": {
            "name": "retrieval",
            "data": {**emoji, "split": "test"},
            "train_data": {**emoji, "split": "train"},
          }
        },
      },
    }
  )
