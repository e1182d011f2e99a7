"""Run folders in a bucket, played by fsspec's memory: all but the arrays of checkpoints, which TensorStore sends."""

import json
import sys

import jax
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import train
import zoo
from tests.train.test_guard import CONFIG
from zoo.checkpoints.manager import Checkpoints
from zoo.errors import UserError
from zoo.evaluate.artifacts import write_json
from zoo.storage import as_path
from zoo.train import metrics, run


class Bucket(MemoryFileSystem):
  protocol = ("gs", "gcs")
  store = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.replace("gs://", "memory://"))


@pytest.fixture
def folder(monkeypatch):
  for protocol in Bucket.protocol:
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, protocol, Bucket)
  Bucket.store.clear()
  return "gs://bucket/run"


def names():
  return sorted(path.removeprefix("/bucket/run/") for path in Bucket.store)


def test_a_run_leaves_everything_in_its_bucket_and_goes_on_there(folder, tmp_path, monkeypatch, capsys):
  (tmp_path / "config.py").write_text(CONFIG)
  arguments = [f"--config={tmp_path}/config.py", f"--config.workdir={folder}", "--config.log.every=1", "--profile=2:3"]
  monkeypatch.setattr(run, "Checkpoints", lambda folder, **options: Checkpoints(tmp_path / "here", **options))
  for steps in (3, 5):
    assert train.main([*arguments, f"--config.steps={steps}"]) == 0
  said = capsys.readouterr().out
  assert "Steps 2 to 3 took" in said and "No profile: the run resumes after step 3" in said
  profile = [name for name in names() if name.startswith("profile/")]
  assert any(name.endswith(".xplane.pb") for name in profile)
  left = [".lock", "config.json", "environment.json", "metrics.jsonl", "model.json", "page.html", "params.safetensors"]
  assert sorted(names()) == sorted(left + profile)
  assert ">loss</figcaption>" in as_path(f"{folder}/page.html").read_text()
  lines = metrics.read(f"{folder}/metrics.jsonl")
  assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
  model, params = zoo.load(folder)
  assert model.spec["family"] == "vit" and params["head"]["bias"].shape == (10,)

  with pytest.raises(SystemExit):
    train.main([*arguments, "--config.model.dim=9"])
  assert "gs://bucket/run holds another model: model.dim: 6 -> 9" in capsys.readouterr().err
  status = train.main([f"--config={folder}", "--config.steps=5"])  # Its own config.json.
  assert status == 0 and "had reached step 5 already" in capsys.readouterr().out


def test_lines_reach_a_bucket_now_and_then_and_when_asked_for(folder, monkeypatch):
  writers = metrics.Writers(folder)
  writers.write(1, {"loss": 2.0})
  assert names() == []
  writers.flush()
  assert [line["loss"] for line in metrics.read(f"{folder}/metrics.jsonl")] == [2.0]
  monkeypatch.setattr(metrics, "UPLOAD", 0.0)
  writers.write(2, {"loss": 1.0})
  assert len(metrics.read(f"{folder}/metrics.jsonl")) == 2
  writers.close()
  metrics.Writers(folder, step=1).close()
  assert [line["step"] for line in metrics.read(f"{folder}/metrics.jsonl")] == [1]


def test_evaluators_and_kept_batches_reach_a_bucket(folder):
  from zoo.train import replay

  write_json(folder, "retrieval.json", {"r1": np.nan, "step": 3})
  assert json.loads(as_path(f"{folder}/retrieval.json").read_text()) == {"r1": None, "step": 3}
  halves = [{"image": np.full((2, 3), i)} for i in range(2)]
  for i, half in enumerate(halves):
    path = replay.keep(folder, 7, half, i, 2)
  step, batch = replay.batch_of(path)
  assert step == 7 and jax.tree.all(
    jax.tree.map(np.array_equal, batch, {"image": np.repeat([[0], [1]], 2, 0) * [1, 1, 1]})
  )


def test_an_unknown_bucket_and_a_missing_package_are_told(monkeypatch):
  with pytest.raises(UserError, match="nfs://x: there are folders here and at gs://, s3://, az://"):
    as_path("nfs://x")
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "gcs", raising=False)
  with pytest.raises(UserError, match="gcsfs is not installed. Install it with: pip install gcsfs"):
    as_path("gs://bucket/run")
