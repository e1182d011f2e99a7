"""ViT-B/16 on ImageNet-1k from scratch, for a pod slice: 300 epochs at 224 pixels.

    python train.py --config=configs/vit_b16_i1k.py --config.data.source='images:/data/imagenet'

1.28 million images, 1,024 a step: 1,251 steps an epoch. The data are yours to bring: class folders inside the folders
`train` and `validation`, or TFDS's `imagenet2012` prepared elsewhere with `--file_format=array_record`. Recipe after https://arxiv.org/abs/2106.10270
("AugReg") and https://arxiv.org/abs/2012.12877 ("DeiT"). We have not run it to its end: no result is claimed.
"""

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(
    {
      "seed": 0,
      "steps": 300 * 1251,
      "batch_size": 1024,
      "workdir": "runs/vit_b16_i1k",
      "model": {"family": "vit", "variant": "B/16", "num_classes": 1000, "drop_path": 0.1, "dtype": "bfloat16"},
      "objective": {"name": "classify", "label_smoothing": 0.1},
      "data": {
        "name": "labelled_images",
        "source": "tfds:imagenet2012",
        "data_dir": None,
        "split": "train",
        "image_size": 224,
        "fit": "random_crop",
        "workers": 12,
        "augment": [{"name": "flip"}, {"name": "color", "p": 0.8}, {"name": "cutout", "p": 0.25}],
      },
      "optimizer": {
        "name": "adamw",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "warmup_steps": 10_000,
        "weight_decay": 0.05,
        "clip_norm": 1.0,
        "ema": 0.9999,
      },
      "mesh": {"data": -1},
      "sharding": "replicated",
      "eval": {
        "every": 6255,
        "evaluators": {
          "test": {"name": "classification", "data": {"split": "validation"}, "batch_size": 256},
        },
      },
      "log": {"every": 50},
      "checkpoint": {"every": 1251, "best": "eval/test/accuracy"},
    }
  )
