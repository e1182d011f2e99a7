"""A Whisper is fine-tuned by one command: the first loss equals torch's, and torch loads the result."""

import json
import pathlib

import numpy as np
import pytest

import train
import zoo
from tests.data import toys
from tests.transcribe.listener import whisper_folder
from zoo import sharding
from zoo.config.loading import load
from zoo.finetune.filling import with_task
from zoo.train.experiment import experiment
from zoo.train.initial import first_state

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("jiwer")
pytest.importorskip("whisper_normalizer")
CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune.py"


def test_recordings_are_learned_as_torch_learns_them(tmp_path):
  (tmp_path / "model").mkdir()
  whisper_folder(tmp_path / "model", seconds=1)
  toys.write(tmp_path / "data", {f"{n}.wav": toys.wav(200 * n) for n in range(1, 21)})
  toys.write(tmp_path / "data", {f"{n}.txt": f"tone {n}" for n in range(1, 21)})
  settings = {"init": tmp_path / "model", "task": "speech", "data.source": f"audio:{tmp_path / 'data'}"}
  settings |= {"workdir": tmp_path / "run", "steps": 2, "batch_size": 8, "log.every": 1, "verify": "never"}
  settings |= {"data.language": "de", "eval.every": 0, "optimizer.warmup_steps": 0}
  arguments = [f"--config={CONFIG}", *(f"--config.{name}={value}" for name, value in settings.items())]
  said = []
  config = with_task(load(arguments)[0], said.append)
  assert (config.data.name, config.data.target_length, config.data.language) == ("audio_text", 16, "de")
  assert (config.checkpoint.best, config.checkpoint.best_mode) == ("eval/speech/wer", "min")
  assert any(line.startswith("target_length: 16 tokens; the longest of 18 texts has 11") for line in said)
  built = experiment(config, sharding.make_mesh(config.mesh))
  batch = next(iter(built.batches.iterate(0)))
  assert batch["target_tokens"][0, :3].tolist() == [259, 262, 264]  # German, transcribe, without times.
  zoo.save_hf(tmp_path / "begun", built.model, first_state(config, built)["params"])
  model = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "begun").eval()
  labels = np.where(batch["target_valid"], batch["target_tokens"], -100).astype(np.int64)
  features = torch.from_numpy(np.asarray(batch["tokens"]).swapaxes(1, 2).copy())
  with torch.no_grad():
    loss = model(input_features=features, labels=torch.from_numpy(labels)).loss.item()
  assert train.main(arguments) == 0
  logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert logged[0]["loss"] == pytest.approx(loss, rel=2e-5)
  assert "eval/speech/wer" in logged[-1] and zoo.load(tmp_path / "run", best=True)
  alone = {"split": "train[90%:]", "language": "de", "max_new_tokens": 3}
  metrics = zoo.evaluate_model(tmp_path / "run", task="speech", data=settings["data.source"], **alone)
  assert metrics["words"] == 4
