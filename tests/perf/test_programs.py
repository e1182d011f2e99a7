import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo.perf import programs as timing
from zoo.perf.programs import CompiledSteps, memory, needed
from zoo.perf.speed import Speed


@pytest.fixture
def run():
  """-> CompiledSteps, its Speed, and a function that runs a batch of so many rows."""
  speed = Speed(0)
  programs = CompiledSteps(
    jax.jit(lambda state, batch: (state + batch["x"].sum(), batch["x"] * 2), donate_argnums=0), speed
  )

  def rows(count):
    return programs(count, jnp.float32(1), {"x": jnp.ones((count, 3))})

  return programs, speed, rows


def test_each_shape_is_compiled_once_and_computes_what_the_step_does(run):
  programs, _, rows = run
  for count in (2, 5, 2, 5):
    state, doubled = rows(count)
    assert state == 1 + 3 * count
    np.testing.assert_array_equal(doubled, np.full((count, 3), 2))
  assert len(programs.compiled) == 2


def test_compilation_is_measured_apart_and_is_no_time_of_training(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, "perf_counter", lambda: now[0])

  def taking(seconds, result):
    def called(*_):
      now[0] += seconds
      return result

    return called

  compiled = taking(2, ())
  compiled.memory_analysis = lambda: None
  speed = Speed(0)
  programs = CompiledSteps(
    types.SimpleNamespace(lower=taking(30, types.SimpleNamespace(compile=taking(40, compiled)))), speed
  )
  programs("a shape", 0, 0)
  programs("a shape", 0, 0)
  assert speed.measure(2) == {
    "seconds_per_step": 2.0, "seconds_device": 0.0, "seconds_dispatch": 2.0
  }  # fmt: skip
  assert programs.measure()["seconds_compile"] == 70
  assert "seconds_compile" not in programs.measure()
  programs("another", 0, 0)
  assert programs.measure()["seconds_compile"] == 70


def device(**stats):
  return types.SimpleNamespace(memory_stats=lambda: stats or None)


def test_memory_is_that_of_the_fullest_device(monkeypatch):
  devices = [device(peak_bytes_in_use=7, bytes_in_use=3), device(peak_bytes_in_use=5, bytes_in_use=4)]
  monkeypatch.setattr(timing.jax, "local_devices", lambda: devices)
  assert memory() == {"memory_peak": 7.0, "memory_in_use": 4.0}


def test_where_devices_do_not_count_the_compiler_tells_what_the_largest_program_needs(run, monkeypatch):
  programs, _, rows = run
  monkeypatch.setattr(timing.jax, "local_devices", lambda: [device()])
  assert memory() == {} and programs.measure() == {}
  rows(1024)
  rows(2)
  assert programs.measure()["memory_program"] >= 2 * 4 * 3 * 1024  # What comes in and what goes out.


def test_a_tpu_needs_the_peak_and_not_the_sum():
  sizes = dict(argument_size_in_bytes=5, output_size_in_bytes=4, alias_size_in_bytes=3, temp_size_in_bytes=20)
  program = lambda **more: types.SimpleNamespace(memory_analysis=lambda: types.SimpleNamespace(**sizes, **more))
  assert needed(program(peak_memory_in_bytes=19), "tpu") == 19
  assert needed(program(), "tpu") == needed(program(peak_memory_in_bytes=19), "cpu") == 26
