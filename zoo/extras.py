"""Optional packages: the pip command that installs an extra of pyproject.toml, with or without a clone."""

PACKAGES = {
  "tpu": "'jax[tpu]'",
  "cuda": "'jax[cuda12]'",
  "hub": "huggingface_hub",
  "wandb": "wandb",
  "tensorboard": "tensorboardX",
  "gcs": "gcsfs",
  "s3": "s3fs",
  "http": "aiohttp",
  "audio": "soundfile soxr",
  "harness": "lm_eval",
  "export": "flatbuffers",
  "scores": "sacrebleu rouge-score",
  "speech": "jiwer whisper-normalizer",
}


def install(extra: str) -> str:
  """The command that installs an extra's packages: `pip install wandb`.

  Example:
    >>> install("scores")
    'pip install sacrebleu rouge-score'
  """
  return f"pip install {PACKAGES[extra]}"
