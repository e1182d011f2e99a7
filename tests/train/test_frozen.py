"""Frozen models of a run: which are refused, where they live, and that they are counted and verified."""

import functools
import sys

import jax
import pytest

import zoo
from tests.train import carried
from tests.train.carried import SIZES, Run, config_of, distilled, everything
from zoo.config import loading
from zoo.errors import UserError
from zoo.perf import memory
from zoo.plan import compile as planning
from zoo.plan.chips import Chip
from zoo.sharding import make_mesh
from zoo.sharding.explain import every_row
from zoo.train.experiment import experiment
from zoo.verify import comparison, reduced_program


@pytest.fixture(autouse=True)
def toys(monkeypatch):
  carried.install(monkeypatch.setattr, functools.partial(monkeypatch.setitem, sys.modules))


@pytest.fixture
def folder(tmp_path):
  carried.write_data(tmp_path)
  return tmp_path


@pytest.mark.parametrize(
  "entry, message",
  [
    (3, r"frozen.teacher is 3. It must be a folder or a hub id .str., or a mapping with a 'source'"),
    ({"folder": "x"}, "frozen.teacher is .* It must be a folder or a hub id"),
    ("nowhere", "frozen.teacher: .*nowhere"),
  ],
)
def test_frozen_models_that_are_none_are_refused(folder, entry, message):
  with pytest.raises(UserError, match=message):
    Run(config_of(folder, frozen={"teacher": entry}, objective={"name": "distill"}), 1)


def test_a_frozen_model_that_the_objective_does_not_use_is_refused(folder):
  changes = distilled(folder)
  unused = {"frozen": {**changes["frozen"], "spare": changes["frozen"]["teacher"]}}
  with pytest.raises(UserError, match="frozen.spare is not used by the objective distill. Remove it, or choose"):
    Run(config_of(folder, **{**changes, **unused}), 1)
  with pytest.raises(UserError, match="frozen.teacher is not used by the objective classify"):
    Run(config_of(folder, **{**changes, "objective": {"name": "classify"}}), 1)


def test_a_frozen_model_may_be_a_section_with_options_of_load(folder):
  changes = distilled(folder)
  changes["frozen"] = {"teacher": {"source": changes["frozen"]["teacher"], "dtype": "bfloat16"}}
  frozen = Run(config_of(folder, **changes), 1).made.frozen
  assert {x.dtype.name for x in jax.tree.leaves(frozen.params)} == {"bfloat16"}


@pytest.mark.parametrize(
  "teacher, student, message",
  [
    ({"num_classes": 5}, {}, r"The teacher returns logits \(1, 5\), the student \(1, 3\). Set model.num_classes"),
    ({"image_size": 8}, {}, r"The teacher takes images of shape \(8, 8, 3\), the student \(4, 4, 3\). Set image_size."),
    ({}, {"preprocessing": {"image": {"mean": [0.1] * 3, "std": [0.2] * 3}}}, "The teacher's pixels are x / 127.5 - 1"),
    ({"num_classes": None}, {}, "distill needs a model with the output logits"),
  ],
)
def test_teachers_that_do_not_fit_are_refused_before_training(folder, teacher, student, message):
  changes = distilled(folder)
  model = zoo.build("vit", **{**SIZES, "patch_size": 2, "dim": 6, "depth": 1, "num_heads": 3, **teacher})
  zoo.save(folder / "other", model, model.init(jax.random.key(1), *model.example())["params"])
  changes |= {"frozen": {"teacher": str(folder / "other")}, "model": {**changes["model"], **student}}
  with pytest.raises(UserError, match=message):
    Run(config_of(folder, **changes), 1)


def test_another_teacher_is_another_run_and_the_order_of_keys_is_none(folder):
  config = config_of(folder, **distilled(folder))
  config.optimizer.groups = [{"params": ["head/.*"], "learning_rate": 0.1}]
  (folder / "run").mkdir()
  loading.save(config, folder / "run")
  loading.check_same_run(config, folder / "run")
  config.frozen.teacher = "another"
  with pytest.raises(UserError, match="holds another run: frozen.teacher: .* -> .*another"):
    loading.check_same_run(config, folder / "run")


def test_distilling_needs_a_teacher(folder):
  with pytest.raises(UserError, match="distill needs a teacher. Set frozen.teacher"):
    Run(config_of(folder, objective={"name": "distill"}), 1)


def test_frozen_models_and_memories_are_counted(folder, monkeypatch):
  config = config_of(folder, **everything(folder), sharding="fsdp")
  built, mesh, _ = planning.experiment_on_devices(config, jax.devices())
  assert built.shapes["rows"]["memory"]["stack"]["layers"]["before"].shape == (2, 16, 8)
  rows = every_row(built.shapes, config.sharding, mesh, built.frozen.shapes)
  of_teacher = {row.path: row for row in rows if row.path.startswith("frozen/teacher/")}
  assert len(of_teacher) == len(jax.tree.leaves(built.frozen.params))
  head = of_teacher["frozen/teacher/stack/layer_0/feed_forward/up/kernel"]
  assert head.bytes == 4 * 6 * 24 and head.bytes_per_device == head.bytes / 8
  sizes = [sum(row.bytes_per_device for row in part) for part in (of_teacher.values(), rows)]
  for name in ("named_devices", "devices_of"):
    monkeypatch.setattr(planning, name, lambda target: jax.devices())
  monkeypatch.setitem(planning.CHIPS, "cpu", Chip(2**30, 1e9, 1e9, 1e8))
  assert any(line.startswith("frozen ") for line in planning.sharding_report(config, "v5e:2x4").splitlines())
  plan = planning.plan(config, "v5e:2x4")
  assert plan.state["frozen"] == sizes[0] and sum(plan.state.values()) == sizes[1]
  assert plan.padding == 0  # They are all that the compiler counts as arguments.
  # All of them live in the memory of this host.
  places = (built.frozen.shapes, dict(built.frozen.placed))
  monkeypatch.setattr(memory, "host_memory", lambda: 8 * sizes[1])
  memory.check_state(built.shapes, built.placed, places)
  monkeypatch.setattr(memory, "host_memory", lambda: 8 * sizes[1] - 1)
  memory.check_state(built.shapes, built.placed)
  with pytest.raises(UserError, match="Parameters, optimizer state and frozen models need"):
    memory.check_state(built.shapes, built.placed, places)


def test_teachers_are_verified_where_they_live_and_what_is_carried_is_compared(folder, monkeypatch):
  config = config_of(folder, **everything(folder), sharding="fsdp")
  mesh = make_mesh({"data": 8})
  built = experiment(config, mesh)

  def program(*args, alone=False):
    right = reduced_program.program(*args, alone=alone)
    if not alone:
      return right

    def run(*inputs):  # One device remembers something else.
      loss, carry, grads = right.run(*inputs)
      return loss, {**carry, "rows": jax.tree.map(lambda x: x + 1, carry["rows"])}, grads

    return right._replace(run=run)

  monkeypatch.setattr(comparison, "program", program)
  monkeypatch.setattr(comparison, "_first_module", lambda *args: "")
  verdict = comparison.compare(config, built, mesh)
  assert list(verdict.wrong) == ["what is carried in rows/memory/stack/layers/before"] and verdict.parameters == 9
  assert verdict.line().startswith("what is carried in rows/memory/stack/layers/before differs from one device's by ")
  _, split, _ = reduced_program.reduce(config, built, mesh)
  assert any(any(place.spec) for place in jax.tree.leaves(split.frozen_placed))
