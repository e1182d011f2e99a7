import dataclasses
import importlib.util
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from zoo.config import registry
from zoo.config.loading import load, without
from zoo.errors import UserError
from zoo.perf import flops
from zoo.perf.collectives import Collective
from zoo.plan import compile as planning
from zoo.plan.chips import Chip, devices_of, named_devices, parse_target
from zoo.plan.compile import Plan, plan, show
from zoo.plan.fake_data import with_fake_data
from zoo.sharding import make_mesh, report
from zoo.sharding.explain import parts, size
from zoo.train.experiment import experiment

ROOT = Path(__file__).parents[2]
CONFIGS = [path for path in sorted(ROOT.glob("configs/*.py")) if path.stem != "finetune"]  # It names a task alone.
PLAN = Plan(
  target="v5e:2x2", chips=4, kind="TPU v5 lite", mesh={"data": 4}, parameters=1000, state={"params": 2**30, "step": 4},
  batch=2**20, padding=0, temporary=2**31, compile_error="",
  model_flops=4 * 197 * 10**12, computed_flops=8 * 197 * 10**12,
  collectives=[Collective("all-reduce", 2**30, 2, 4, ("data",)), Collective("all-gather", 2**20, 1, 4, ("data",))],
  rows=8, tokens=800, steps=3600,
)  # fmt: skip


def test_a_step_takes_as_long_as_what_takes_longest():
  times = PLAN.times
  assert times["compute"] == pytest.approx(2.0)  # Twice what a chip does in a second.
  assert times["memory"] == pytest.approx((2 * (2**30 + 4) + 2 * 2**31 + 2**20) / 819e9)
  assert times["links"] == pytest.approx((2 * 1.5 * 2**30 + 0.75 * 2**20) / 200e9)
  text = show(PLAN)
  assert "It fits." in text and "3.0 GiB" in text and "18.8%" in text
  assert "4.00 to" not in text and ": 50% to " in text  # Model FLOPs are half of what is computed.
  assert "2.00 hours" not in text.splitlines()[0] and "run      2.00 to" in text and "chip-hours" in text
  assert text.index("all-reduce") < text.index("all-gather")


def test_what_goes_between_networks_takes_its_own_time():
  spread = Collective("all-reduce", 2**30, 1, 8, ("data",), networks=2)
  planned = dataclasses.replace(PLAN, chips=8, collectives=[spread])
  # In each of two slices four chips add up, then each exchanges its quarter.
  assert spread.sent == 2 * 3 / 4 * 2**30 and spread.sent_across == 2 * 1 / 2 * 2**30 / 4
  assert planned.times["network"] == pytest.approx(2**28 / 3.125e9)
  assert "256.0 MiB over the network" in show(planned) and "network " in show(planned)
  assert "network " not in show(PLAN).partition("A step takes")[0]


def test_what_does_not_fit_is_said():
  assert "It does not fit: it exceeds the memory" in show(dataclasses.replace(PLAN, temporary=2**34))
  refused = show(dataclasses.replace(PLAN, temporary=None, compile_error="Ran out of memory: 20G of 15.75G"))
  assert refused.endswith("It does not fit: Ran out of memory: 20G of 15.75G")


def test_a_config_is_compiled_for_devices_that_only_have_to_be_named(monkeypatch, tmp_path):
  monkeypatch.setattr(planning, "devices_of", lambda target: jax.devices())
  monkeypatch.setattr(planning, "parse_target", lambda target: target)
  monkeypatch.setitem(planning.CHIPS, "cpu", Chip(2**30, 1e9, 1e9, 1e8))
  monkeypatch.setitem(flops.TPU_PEAK, "cpu", 1e12)
  small = ["--config.model.dim=16", "--config.model.depth=2", "--config.model.num_heads=2", "--config.model.mlp_dim=32"]
  mesh = ["--config.mesh={'data': 4, 'model': 2}", "--config.sharding=fsdp+tensor", "--config.batch_size=8"]
  config, _ = load([f"--config={ROOT}/configs/gpt2_owt.py", *small, "--config.model.max_length=64",
                    "--config.data.max_length=64", "--config.eval.evaluators={}", *mesh])  # fmt: skip
  planned = plan(config, "eight of these")
  assert planned.mesh == {"data": 4, "model": 2} and planned.chips == 8
  assert planned.rows == 8 and planned.tokens == 8 * 64
  assert 4 * planned.parameters / 8 <= planned.state["params"] < 4 * planned.parameters / 2
  assert planned.temporary and planned.model_flops < planned.computed_flops
  axes = {(one.kind, one.axes) for one in planned.collectives}
  assert ("all-reduce", ("model",)) in axes and any("data" in axis for _, axis in axes)
  assert "eight of these: 8 x cpu" in show(planned)
  # The whole is what the compiler says: arguments, what is neither argument nor given back in its place, and the rest.
  with_data = config.copy_and_resolve_references().unlock()
  with_data.data = with_fake_data(config.data.to_dict(), tmp_path)
  built = experiment(with_data, make_mesh(config.mesh))
  batch = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in built.batches[0].items()}
  memory = built.compiled_step().lower(built.shapes, batch).compile().memory_analysis()
  whole = memory.argument_size_in_bytes + memory.temp_size_in_bytes
  whole += memory.output_size_in_bytes - memory.alias_size_in_bytes
  assert planned.used == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_data_of_a_config_are_stood_in_for_in_rows_that_are_full(path, tmp_path):
  config, _ = load([f"--config={path}"])
  data = with_fake_data(config.data.to_dict(), tmp_path)
  records = registry.build("data", without(data, "augment", "workers"))
  example = records[0]
  if data["name"] != "packed":  # Of whole pairs.
    assert all(np.all(array) for name, array in example.items() if name.endswith("valid"))
  wanted = config.data.get("max_length")
  assert wanted is None or "tokens" not in example or example["tokens"].shape[-1] == wanted


def test_members_of_a_mixture_have_files_of_their_own(tmp_path):
  member = {"name": "labelled_texts", "source": "jsonl:x", "tokenizer": "bytes"}
  members = {"one": member, "other": member | {"label_field": "class", "class_names": ["a", "b"]}}
  data = with_fake_data({"name": "mixture", "members": members, "rates": {"one": 0.5, "other": 0.5}}, tmp_path)
  one, other = (Path(data["members"][name]["source"].removeprefix("jsonl:")).read_text() for name in members)
  assert '"label": "no"' in one and '"class": "a"' in other


def test_train_would_refuse_data_whose_tokens_the_model_does_not_know():
  line = [f"--config={ROOT}/configs/gpt2_owt.py", "--config.model.family=llama", "--config.model.variant=llama-2-7b"]
  (told,) = planning.vocabularies(load(line)[0])
  assert "'gpt2' has 50,257 tokens, model.vocab_size is 32,000" in told
  # What is not here cannot be looked at, and a plan needs it not.
  assert not planning.vocabularies(load([*line, "--config.data.tokenizer=meta-llama/Llama-2-7b-hf"])[0])


def test_rows_are_called_what_they_are():
  tokens, image = (jax.ShapeDtypeStruct((3, *shape), "int32") for shape in ((5,), (7, 7, 3)))
  assert planning.batch_counts({"tokens": tokens, "image": image}) == {"examples": "pairs", "tokens": 0}
  assert planning.batch_counts({"image": image})["examples"] == "images"
  assert planning.batch_counts({"tokens": tokens, "target_tokens": tokens, "valid": tokens})["tokens"] == 30


def test_what_lives_where_is_told_for_chips_that_are_not_here_and_nothing_is_compiled():
  line = [f"--config={ROOT}/configs/gpt2_owt.py", "--config.sharding=fsdp", "--config.batch_size=512"]
  for target, mesh in (("v5e:8x8", {"data": 64}), ("2*v5e:16x16", {"data": 512}), ("h100:16", {"data": 16})):
    text = planning.sharding_report(load(line)[0], target)
    chips = math.prod(mesh.values())
    assert text.startswith(f"mesh {mesh}") and ("Whole on each of the 512" in text) == (chips == 512)
    up = next(line for line in text.splitlines() if "feed_forward/up/kernel" in line)
    assert up.endswith(size(12 * 768 * 3072 * 4 // chips))


def test_parameters_on_a_chip_fall_as_the_chips_rise():
  line = [f"--config={ROOT}/configs/gpt2_owt.py", "--config.model.family=llama", "--config.model.variant=llama-2-7b",
          "--config.sharding=fsdp", "--config.batch_size=512"]  # fmt: skip
  for target in ("v5p:2x2x4", "v5p:4x4x4", "2*v5e:16x16"):
    chips = parse_target(target)
    built, mesh, _ = planning.experiment_on_devices(load(line)[0], named_devices(chips))
    bytes_on_device = sum(row.bytes_per_device for row in parts(report(built.shapes, "fsdp", mesh))["params"])
    assert bytes_on_device == 4 * built.parameters // chips.chips


@pytest.mark.parametrize("target", ["v9:2x2", "b100:8", "a100:8", "v3-8", "v5litepod-", "auto", ""])
def test_what_is_no_chip_is_told(target):
  with pytest.raises(UserError, match="it must be GENERATION:TOPOLOGY"):
    parse_target(target)


@pytest.mark.parametrize(
  "target", ["v5e", "v5e:4x5", "v5e:0x4", "v5e:4", "v5e:8x2", "v5p:4x4", "v5p:3x4x4", "v4:16x16x32"]
)
def test_what_is_no_slice_is_told(target):
  with pytest.raises(UserError, match=f"{target[:2]}.* has no such slice. It has: .*4x4"):
    parse_target(target)


@pytest.mark.parametrize("target", ["h100", "h100:0", "h100:12", "2*h100:8", "h100:x"])
def test_what_is_no_number_of_gpus_is_told(target):
  with pytest.raises(UserError, match="must be a multiple of 8"):
    parse_target(target)


@pytest.mark.parametrize("target", ["0*v5e:4x4", "*v5e:4x4", "two*v5e:4x4"])
def test_what_is_no_number_of_slices_is_told(target):
  with pytest.raises(UserError, match=r"the number of slices, as in 2\*v5e:4x4"):
    parse_target(target)


def test_targets_are_read_as_people_write_them():
  written = {"V5E:4X4": ("v5e:4x4", 16), " 2 * v5e: 4x4": ("2*v5e:4x4", 32), "v5p:8x4x4": ("v5p:4x4x8", 128),
             "v5litepod-16": ("v5e:4x4", 16), "2*v5p-128": ("2*v5p:4x4x4", 128), "v4-8": ("v4:2x2x1", 4),
             "v6e-256": ("v6e:16x16", 256), "v5p:2x2x1": ("v5p:2x2x1", 4),
             "1*v6e:1x1": ("v6e:1x1", 1), "H100:16": ("h100:16", 16)}  # fmt: skip
  assert {text: (str(parse_target(text)), parse_target(text).chips) for text in written} == written


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is here")
def test_says_what_to_install():
  with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
    devices_of(parse_target("v5e:4x4"))


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not here")
def test_a_slice_has_its_chips():
  for target in ("v5e:1x1", "2*v6e:2x4", "v4:2x2x4"):
    assert len(devices_of(parse_target(target))) == parse_target(target).chips


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not here")
def test_a_slice_gathers_parameters_and_holds_what_its_compiler_says():
  small = {"dim": 512, "depth": 2, "num_heads": 4, "mlp_dim": 2048, "max_length": 128, "vocab_size": 512}
  planned = plan(load([f"--config={ROOT}/configs/gpt2_owt.py", "--config.sharding=fsdp", "--config.batch_size=64",
                       "--config.data.max_length=129",
                       *(f"--config.model.{name}={size}" for name, size in small.items())])[0], "v4:4x4x4")  # fmt: skip
  sent = {
    kind: sum(one.sent for one in planned.collectives if one.kind == kind) for kind in ("all-gather", "all-reduce")
  }
  # Without zoo.train.xla_options nothing is gathered on a slice of three dimensions. Forward and backward, in bfloat16.
  assert sent["all-gather"] > 63 / 64 * 2 * planned.parameters
  assert planned.fits and planned.state["params"] + planned.state["opt_state"] < planned.used < 2**30
