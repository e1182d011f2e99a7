import jax
import jax.numpy as jnp
import pytest

from zoo.errors import UserError
from zoo.profiling import Op, Profile, own_times, summary, union


@pytest.mark.parametrize("text", ["10", "13:10", "0:3", "a:b", "1:2:3", ""])
def test_what_are_no_steps_is_told(text, tmp_path):
  with pytest.raises(UserError, match="it must be the first step and the last one, e.g. 10:13"):
    Profile(text, tmp_path, 0, 100)


@pytest.mark.parametrize("text", ["5:9", "90:101"])
def test_steps_that_the_run_does_not_have_are_told(text, tmp_path):
  with pytest.raises(UserError, match="this run goes from step 6 to 100"):
    Profile(text, tmp_path, 5, 100)


def test_a_loop_does_not_count_what_it_runs():
  ops = [Op("while", "cpu", 0, 100), Op("dot", "cpu", 10, 40), Op("dot", "cpu", 50, 60), Op("add", "other", 0, 5)]
  assert own_times(ops) == {"while": (1, 60), "dot": (2, 40), "add": (1, 5)}
  assert union([(0, 10), (5, 20), (30, 31)]) == 21
  text = "\n".join(summary(ops, 2))
  assert "cpu: busy 100%" in text and "57.1%" in text  # 60 of 105.


def test_some_steps_are_traced_and_told(tmp_path):
  profile = Profile("2:3", tmp_path / "run", 0, 4)
  step = jax.jit(lambda x: jnp.tanh(x @ x))
  x = jnp.ones((64, 64))
  said = {}
  for number in range(1, 5):
    profile.before(number)
    x = step(x)
    said[number] = profile.after(number, x)
  assert [bool(lines) for lines in said.values()] == [False, False, True, False]
  assert "the steps 2 to 3" in said[3][0] and "xprof --logdir=" in said[3][0]
  assert any("dot" in line or "fusion" in line for line in said[3])
  assert list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
  quiet = Profile(None, tmp_path, 0, 4)
  quiet.before(1)
  assert quiet.after(1, x) == []
