import dataclasses
from pathlib import Path

import pytest

from tests.plan.test_compile import PLAN
from zoo.config.loading import load
from zoo.errors import UserError
from zoo.plan import search as plan_search
from zoo.plan.search import Try, as_flags, meshes, plan_report, ranked, search, show

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config():
  return load([f"--config={ROOT}/configs/gpt2_owt.py", "--config.batch_size=8"])[0]


def made_up(config, target):
  """A plan whose memory and time follow from what is tried: full rematerialisation alone fits."""
  if config.batch_size == 32:
    raise UserError("that is too many")
  memory = {"none": 2**35, "dots": 2**34, "full": 2**32}[str(config.model.remat).lower()]
  slow = 1 if config.sharding == "fsdp" else 2
  memory += slow * 2**30
  # A batch of twice the rows takes less than twice the time.
  computed = int(slow * config.batch_size**0.5 * 1e12)
  return dataclasses.replace(
    PLAN,
    target=target,
    temporary=memory,
    rows=config.batch_size,
    model_flops=10**12,
    computed_flops=computed,
    collectives=[],
  )


def test_the_best_fits_and_takes_least_for_an_example(config, monkeypatch):
  monkeypatch.setattr(plan_search, "devices_of", lambda target: [None] * 8)
  notes = []
  tries = search(config, "auto:v5e:2x4", notes.append, made_up)
  assert tries[0].changes == {
    "mesh": {"data": -1}, "sharding": "fsdp", "model.remat": "full", "batch_size": 16
  }  # fmt: skip
  assert tries[0].outcome.target == "v5e:2x4" and len(notes) == len(tries)
  fits = [isinstance(one.outcome, str) or one.outcome.fits for one in tries]
  assert isinstance(tries[-1].outcome, str) and fits[:-1] == sorted(fits[:-1], reverse=True)
  text = show(tries)
  assert "Not possible:" in text and "that is too many" in text
  assert text.splitlines()[3].strip().startswith("1 ") and "--config.batch_size=16" in text.splitlines()[3]
  config.unlock()
  assert config.batch_size == 8 and config.sharding == "replicated"


def test_what_does_not_fit_is_ranked_by_memory():
  small, large = (Try({}, dataclasses.replace(PLAN, temporary=2**power)) for power in (35, 36))
  unknown, refused = Try({}, dataclasses.replace(PLAN, temporary=None)), Try({}, "no")
  assert ranked([refused, unknown, large, Try({}, PLAN), small]) == [Try({}, PLAN), small, large, unknown, refused]
  assert "too much" in show([Try({}, PLAN), unknown])


def test_meshes_leave_chips_for_data():
  assert [mesh.get("mesh") for mesh in meshes(4)] == [None, {"data": -1}, {"data": -1}, {"data": -1, "model": 2}]
  assert len(list(meshes(512))) == 6
  assert {"data": -1, "expert": 4} in [mesh.get("mesh") for mesh in meshes(16, experts=12)]
  assert {"data": -1, "expert": 8} not in [mesh.get("mesh") for mesh in meshes(16, experts=12)]
  assert {"data": -1, "sequence": 2} in [mesh.get("mesh") for mesh in meshes(16, length=8193)]
  assert len(list(meshes(512, length=1025))) == 6


def test_changes_are_told_as_train_takes_them():
  assert (
    as_flags({"mesh": {"data": -1}, "model.remat": None})
    == """--config.mesh='{"data": -1}' --config.model.remat=none"""
  )


def test_what_fails_leaves_the_others(config, monkeypatch):
  monkeypatch.setattr(plan_search, "devices_of", lambda target: [None] * 8)

  def sometimes(config, target):
    if config.sharding != "fsdp":
      raise ValueError("shapes do not fit")
    return made_up(config, target)

  notes = []
  tries = search(config, "auto", notes.append, sometimes)
  assert tries[0].changes["sharding"] == "fsdp" and "shapes do not fit" in show(tries)
  assert notes[0] == "no chips are named after auto: v5e:4x4"


def test_says_why_nothing_can_be_compiled(config, monkeypatch):
  monkeypatch.setattr(plan_search, "devices_of", lambda target: [None] * 8)

  def never(config, target):
    raise UserError(f"{target} is not here")

  with pytest.raises(UserError, match="no configuration compiles: v5e:4x4 is not here"):
    search(config, "auto", make=never)
  with pytest.raises(UserError, match="must be GENERATION:TOPOLOGY"):
    plan_report(config, "autumn:v5e:4x4", note=print)
