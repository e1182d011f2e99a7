import builtins
import json
import os
import sys
import types

import jax.numpy as jnp
import pytest

from zoo.errors import UserError
from zoo.train import metrics
from zoo.train.metrics import Writers


def lines(folder):
  return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_time(rows):
  return [{name: value for name, value in row.items() if name != "time"} for row in rows]


def run(folder, steps, start=0, **options):
  writers = Writers(folder, step=start, **options)
  for step in steps:
    writers.write(step, {"loss": jnp.float32(1 / step)})
  writers.close()


def test_one_object_a_line_with_step_and_time(tmp_path):
  run(tmp_path / "new", [1, 2])
  assert without_time(lines(tmp_path / "new")) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
  assert all(line["time"] > 1.6e9 for line in lines(tmp_path / "new"))


def test_a_line_is_on_disk_once_it_is_written(tmp_path):
  writers = Writers(tmp_path)
  writers.write(1, {"loss": 1})
  assert len(lines(tmp_path)) == 1
  writers.write(2, {})
  assert len(lines(tmp_path)) == 1
  writers.close()


def test_an_interrupted_run_reads_as_one_that_was_not(tmp_path):
  run(tmp_path / "whole", range(1, 9))
  run(tmp_path / "parts", range(1, 6))
  with open(tmp_path / "parts" / "metrics.jsonl", "a") as file:
    file.write('{"step": 6, "lo')  # Killed while it was writing.
  run(tmp_path / "parts", range(4, 9), start=3)  # The newest checkpoint was of step 3.
  assert without_time(lines(tmp_path / "parts")) == without_time(lines(tmp_path / "whole"))


def test_a_run_from_the_start_does_not_continue_an_old_file(tmp_path):
  run(tmp_path, [1, 2])
  run(tmp_path, [5])
  assert [line["step"] for line in lines(tmp_path)] == [5]


def test_an_old_file_survives_if_it_cannot_be_rewritten(tmp_path, monkeypatch):
  run(tmp_path, [1, 2])
  before = (tmp_path / "metrics.jsonl").read_bytes()

  def full(*_):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(
    UserError, match="metrics.jsonl cannot be written: No space left on device. The old file is intact"
  ):
    Writers(tmp_path, step=1)
  assert (tmp_path / "metrics.jsonl").read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_is_not_finite_becomes_null(tmp_path):
  writers = Writers(tmp_path)
  writers.write(1, {"nan": jnp.float32("nan"), "infinite": float("-inf"), "whole": 3})
  writers.close()
  assert without_time(lines(tmp_path)) == [{"step": 1, "nan": None, "infinite": None, "whole": 3.0}]


def test_reading_passes_over_unfinished_lines(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"st\n[1]\n{"step": 2, "loss": 1.0}\n')
  assert metrics.read(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
  class Full:
    def write(self, _):
      raise OSError(28, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(builtins, "open", lambda *_, **__: Full())
    writers = Writers(tmp_path)
  with pytest.raises(
    UserError, match="metrics.jsonl cannot be written: No space left on device. Free some space and run"
  ):
    writers.write(1, {"loss": 1})


def test_a_disk_that_stays_full_is_told_as_well_when_the_file_is_closed(tmp_path):
  (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
  writers = Writers.__new__(Writers)
  writers.path, writers._tensorboard, writers._wandb = tmp_path / "metrics.jsonl", None, None
  writers._file = open(writers.path, "a")
  for write in (lambda: writers.write(1, {"loss": 1}), writers.flush, writers.close):
    with pytest.raises(
      UserError, match="metrics.jsonl cannot be written: No space left on device. Free some space and run"
    ):
      write()


def test_only_the_first_process_writes(tmp_path, monkeypatch):
  monkeypatch.setattr(metrics.jax, "process_index", lambda: 1)
  run(tmp_path, [1], tensorboard=True, wandb="zoo")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "module, options",
  [("tensorboardX", {"tensorboard": True}), ("wandb", {"wandb": "project"})],
  ids=lambda value: str(value),
)
def test_a_missing_extra_is_named_before_anything_is_written(tmp_path, monkeypatch, module, options):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(UserError, match=f"{module} is not installed. Install it with: pip install {module}"):
    Writers(tmp_path / "run", **options)
  assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_same_numbers(tmp_path):
  pytest.importorskip("tensorboardX")
  from tensorboardX.proto.event_pb2 import Event

  run(tmp_path, [1, 2], tensorboard=True)
  (file,) = (tmp_path / "tensorboard").iterdir()
  data, logged = file.read_bytes(), []
  while data:
    length = int.from_bytes(data[:8], "little")
    event = Event.FromString(data[12 : 12 + length])
    logged += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    data = data[16 + length :]
  assert logged == [(1, "loss", 1.0), (2, "loss", 0.5)]


class FakeWandb(types.ModuleType):
  def __init__(self):
    super().__init__("wandb")
    self.calls = []

  def init(self, **keywords):
    self.calls.append(("init", keywords))
    return self

  def log(self, values, step):
    self.calls.append((step, values))

  def finish(self):
    self.calls.append("finish")


def test_weights_and_biases_continues_one_curve(tmp_path, monkeypatch):
  fake = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", fake)
  run(tmp_path, [1], wandb="birds")
  run(tmp_path, [2], start=1, wandb={"project": "birds", "entity": "us"})
  (_, first), one, _, (_, second), two, _ = fake.calls
  assert first == {"project": "birds", "dir": str(tmp_path), "id": first["id"], "resume": "allow"}
  assert second == {**first, "entity": "us"}
  assert (one, two) == ((1, {"loss": 1.0}), (2, {"loss": 0.5}))
