"""CLIP ViT-B/16 on LAION-400M or any other image-text shards that you have, for a pod.

    python train.py --config=configs/clip_b16_laion.py --config.data.source='webdataset:/data/laion/*.tar'

32,768 pairs a step, 32 epochs of 400 million pairs (open_clip's recipe for LAION-400M:
https://github.com/mlfoundations/open_clip). The shards are WebDataset tars, as img2dataset writes them: NAME.jpg beside
NAME.txt. `--config.optimizer.accumulate=8` fits a smaller slice and gives the gradient of the same 32,768 pairs. We
have not run it to its end: no result is claimed.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 390_000,
      "batch_size": 32_768,
      "workdir": "runs/clip_b16_laion",
      "model": {"family": "clip", "variant": "ViT-B/16", "dtype": "bfloat16", "remat": "full"},
      "objective": {"name": "contrastive"},
      "data": {
        "name": "image_text",
        "source": "webdataset:data/laion/*.tar",
        "split": "train[:-5000]",
        "tokenizer": "clip",
        "max_length": 77,
        "image_size": 224,
        "fit": "random_crop",
        "bad_records": "skip",  # Some of so many images from the web do not decode.
        "workers": 12,
      },
      "optimizer": {
        "name": "adamw",
        "learning_rate": 5e-4,
        "schedule": "cosine",
        "warmup_steps": 2000,
        "weight_decay": 0.2,
        "b2": 0.98,
        "eps": 1e-6,
        "accumulate": 1,
      },
      "mesh": {"data": -1},
      "sharding": "fsdp",
      "eval": {
        "every": 5000,
        "evaluators": {
          "test": {
            "name": "retrieval",
            "data": {"split": "train[-5000:]"},
            "batch_size": 256,
          },
        },
      },
      "log": {"every": 20},
      "checkpoint": {"every": 1000},
    }
  )
