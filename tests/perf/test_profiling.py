import re
import types

import jax
import jax.numpy as jnp
import pytest

from zoo.errors import UserError
from zoo.perf import profiling
from zoo.perf.profile_summary import Operation, covered, instructions, own_times, part, summary
from zoo.perf.profiling import Profile, parse_steps
from zoo.perf.speed import Speed


def test_the_steps_to_profile_are_two_numbers():
  assert parse_steps("10:13", 20) == (10, 13) and parse_steps("7:7", 7) == (7, 7)


@pytest.mark.parametrize("text", ["10", "13:10", "x:y", "0:3", "1:2:3", "", ":", "-3:-1"])
def test_anything_else_is_refused(text):
  with pytest.raises(UserError, match=f"--profile is '{text}'. It must be the first and the last step"):
    parse_steps(text, 20)


def test_steps_beyond_the_run_are_refused():
  with pytest.raises(UserError, match="--profile is '10:21', and the run ends at step 20"):
    parse_steps("10:21", 20)


@pytest.fixture
def step():
  """A compiled program, in whose text there are modules."""

  def loss(w, x):
    with jax.named_scope("mlp"):
      return jnp.tanh(x @ w).sum()

  x = jnp.ones((64, 64))
  return jax.jit(lambda w: w - jax.grad(loss)(w, x)).lower(x).compile(), x


def test_a_profile_is_kept_and_summed_up(step, tmp_path):
  program, state = step
  notes = []
  profile = Profile((2, 3), tmp_path, 0, speed=Speed(0), note=notes.append)
  for n in range(1, 6):
    profile.before(n, state)
    state = program(state)
    profile.after(n, state, [program])
  profile.close()
  (note,) = notes
  assert note.startswith("Steps 2 to 3 took ") and f"(xprof --logdir={tmp_path}/profile)\n" in note
  assert "CPU:0" in note and "dot" in note and "mlp, backward" in note
  (kept,) = (tmp_path / "profile").rglob("*.xplane.pb")
  names = {
    e.name for p in jax.profiler.ProfileData.from_file(str(kept)).planes for line in p.lines for e in line.events
  }
  assert any(name.startswith("dot") for name in names)


def test_steps_that_are_under_way_when_it_begins_are_not_in_it(tmp_path):
  w = jnp.full((512, 512), 1e-3)
  program = jax.jit(lambda x: jnp.tanh(x @ w)).lower(w).compile()
  profile, notes, state = Profile((7, 8), tmp_path, 0, speed=Speed(0), note=lambda text: notes.append(text)), [], w
  for n in range(1, 9):
    profile.before(n, state)
    state = program(state)
    profile.after(n, state, [program])
  (row,) = (line.split() for line in notes[0].splitlines() if re.search(r" dot( fusion)? ", line) and "%" in line[:7])
  assert row[2] == "1.0"  # Times in a step.


def test_a_run_that_goes_back_to_before_its_profile_records_on(step, tmp_path):
  program, state = step
  notes = []
  profile = Profile((2, 3), tmp_path, 0, speed=Speed(0), note=notes.append)
  for n in (1, 2, 2, 3):
    profile.before(n, state)
    state = program(state)
    profile.after(n, state, [program])
  assert len(notes) == 1 and notes[0].startswith("Steps 2 to 3 took")


def test_a_profile_that_fails_stops_nothing(step, tmp_path, monkeypatch):
  program, state = step
  notes = []

  def broken(*_, **__):
    raise RuntimeError("no\nprofiler")

  monkeypatch.setattr(profiling.jax.profiler, "start_trace", broken)
  profile = Profile((1, 2), tmp_path, 0, speed=Speed(0), note=notes.append)
  for n in (1, 2):
    profile.before(n, state)
    state = program(state)
    profile.after(n, state, [program])
  assert notes == ["The profile failed: RuntimeError: no profiler"]
  profile.close()


def test_a_run_that_ends_before_its_profile_leaves_none_and_the_next_can_begin(step, tmp_path):
  program, state = step
  notes = []
  for folder in ("first", "second"):
    profile = Profile((1, 9), tmp_path / folder, 0, speed=Speed(0), note=notes.append)
    profile.before(1, state)
    profile.close()
  assert notes == [] and not list(tmp_path.iterdir())


def test_a_run_that_goes_on_behind_the_steps_says_that_it_profiles_nothing(tmp_path):
  notes = []
  profile = Profile((2, 3), tmp_path, 2, speed=Speed(2), note=notes.append)
  profile.before(3, None)
  profile.after(3, None, [])
  assert len(notes) == 1 and "--profile begins at step 2" in notes[0]


@pytest.mark.parametrize(
  "path, where",
  [
    ("jit(step)/jvp(GPT)/stack/layer_2/feed_forward/up/dot_general", "GPT/stack/layer_*/feed_forward/up, forward"),
    ("jit(step)/transpose(jvp(GPT))/stack/while/body/closed_call/query/mul", "GPT/stack/query, backward"),
    ("jit(step)/jvp(CLIP)/jit(_bernoulli)/Dropout.__call__/while", "CLIP, forward"),
    ("jit(step)/transpose(jvp())/mul", "loss, backward"),
    ("jit(step)/mul", "outside the model"),
    ("", ""),
  ],
)
def test_an_operation_belongs_to_a_module_and_a_pass(path, where):
  assert part(path) == where


HLO = """HloModule jit_step

%fused_computation.1 (a: f32[2], b: f32[2]) -> f32[2] {
  %a = f32[2]{0} parameter(0)
  ROOT %dot.9 = f32[2]{0} dot(%a, %b)
}

ENTRY %main.3 (x: f32[2]) -> (f32[2]) {
  %dot_fusion.1 = f32[2]{0:T(8,128)} fusion(%x, %x), kind=kOutput, calls=%fused_computation.1, metadata={op_name="jit(step)/jvp(M)/up/dot_general" id=1}
  ROOT %all-reduce.2 = (f32[2]{0}, /*index=1*/f32[2]{0}) all-reduce(%dot_fusion.1), to_apply=%sum
}
"""  # noqa: E501


def test_a_fusion_is_named_after_its_heaviest_instruction():
  operations = instructions(HLO)
  assert operations["dot_fusion.1"] == ("dot fusion", "jit(step)/jvp(M)/up/dot_general")
  assert operations["all-reduce.2"] == ("all-reduce", "")


def event(name, start, length, **stats):
  return types.SimpleNamespace(name=name, start_ns=1e6 * start, duration_ns=1e6 * length, stats=stats.items())


def profile_of(**planes):
  """{plane: {line: events}}"""
  return types.SimpleNamespace(
    planes=[
      types.SimpleNamespace(
        name=plane, lines=[types.SimpleNamespace(name=line, events=events) for line, events in lines.items()]
      )
      for plane, lines in planes.items()
    ]
  )


def test_operations_of_a_tpu_and_of_streams_of_a_gpu_are_counted_once():
  program = types.SimpleNamespace(as_text=lambda: HLO)
  ops = [event("dot_fusion.1", 0, 6), event("%x.1 = f32[] foo(...)", 6, 2, hlo_category="data formatting")]
  streams = {
    "Stream #1(Compute)": [event("kernel_1", 0, 4, hlo_op="dot_fusion.1")],
    "Stream #2(Memcpy)": [event("MemcpyD2H", 2, 4)],
  }
  planes = {
    "/device:TPU:0": {"XLA Modules": [event("jit_step", 0, 10)], "XLA Ops": ops},
    "/device:GPU:0": streams,
    "/host:CPU": {"python": [event("train", 0, 10)]},
  }
  text = summary(profile_of(**planes), [program], 0.010, 2)
  rows = [line.split() for line in text.splitlines()]
  assert ["TPU:0", "80.0%", "20.0%"] in rows and ["GPU:0", "60.0%", "40.0%"] in rows
  assert ["Stream", "#2(Memcpy)", "40.0%", "60.0%"] in rows
  assert ["62.5%", "2.500", "0.5", "dot", "fusion", "M/up,", "forward"] in rows
  assert ["12.5%", "0.500", "0.2", "data", "formatting"] in rows
  assert summary(profile_of(), [], 1.0, 1) == "There are no operations of devices in it."


def test_what_runs_inside_a_loop_does_not_count_twice():
  loop, first, second, after = (
    Operation("TPU:0", "XLA Ops", start, length, kind, "")
    for start, length, kind in ((0, 10, "while"), (1, 3, "dot"), (4, 5, "add"), (12, 1, "copy"))
  )
  assert [(one.category, alone) for one, alone in own_times([after, second, first, loop])] == [
    ("while", 2), ("dot", 3), ("add", 5), ("copy", 1)
  ]  # fmt: skip
  assert covered([after, second, first, loop]) == 11
