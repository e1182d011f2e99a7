"""`train.py --profile=10:13`: records a profile of some steps, for xprof and as a text summary."""

import contextlib
import pathlib
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import jax
from etils import epath

from zoo.errors import UserError
from zoo.perf.profile_summary import summary
from zoo.perf.speed import Speed
from zoo.storage import as_path


def parse_steps(text: str, steps: int) -> tuple[int, int]:
  """`"10:13"` -> (10, 13), the first and the last step to profile.

  Args:
    text: the command-line value.
    steps: of the run.

  Raises:
    UserError: it is not such a pair, or ends beyond the run.
  """
  try:
    first, last = (int(part) for part in text.split(":"))
  except ValueError:
    first, last = 0, 0
  if not 1 <= first <= last:
    raise UserError(f"--profile is '{text}'. It must be the first and the last step to profile, as in --profile=10:13.")
  if last > steps:
    raise UserError(f"--profile is '{text}', and the run ends at step {steps}. Choose steps up to that.")
  return first, last


class Profile:
  """Records steps `first` to `last` with jax.profiler into `folder/profile`. A failure is only reported.

  Args:
    wanted: (first, last); None: nothing.
    folder: of the run; may be in a bucket.
    done: steps done before. A run that resumes after the first step to profile records nothing.
    speed: records time that is not training.
    note: called with the profile's folder and summary.
    other: a context for work other than steps, which may take longer, `Watchdog.other`.
  """

  def __init__(
    self,
    steps: tuple[int, int] | None,
    folder: Any,
    done: int,
    *,
    speed: Speed,
    note: Callable[[str], Any],
    other: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
  ):
    self._wanted, self._folder = steps, as_path(folder) / "profile"
    self._speed, self._note, self._other = speed, note, other
    self._running: tempfile.TemporaryDirectory | None = None
    self._since = 0.0
    if steps and done >= steps[0]:
      self._wanted = None
      note(f"No profile: the run resumes after step {done}, but --profile begins at step {steps[0]}.")

  def before(self, step: int, state: Any) -> None:
    """To be called before every step. Starts recording before the first step to profile, once `state` is ready: what is
    still computing belongs to the steps before."""
    if self._wanted is None or self._running is not None or step != self._wanted[0]:
      return
    with self._speed.timed("device"):
      jax.block_until_ready(state)
    with self._speed.paused(), self._other(), self._failing():
      self._running = tempfile.TemporaryDirectory()
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # It would record every Python call, and slow it down.
      jax.profiler.start_trace(self._running.name, profiler_options=options)
      self._since = time.perf_counter()

  def after(self, step: int, state: Any, programs: Sequence[Any]) -> None:
    """To be called after every step. Stops recording after the last one, once `state` is computed, and reports the
    result.

    Args:
      step: the completed step.
      state: its result.
      programs: `jax.stages.Compiled`, the programs that may have run.
    """
    if self._wanted is None or self._running is None or step < self._wanted[1]:
      return
    (first, last), folder = self._wanted, pathlib.Path(self._running.name)
    with self._speed.timed("device"):
      jax.block_until_ready(state)
    with self._speed.paused(), self._other(), self._failing():
      seconds = time.perf_counter() - self._since
      self._wanted = None
      jax.profiler.stop_trace()
      self._keep(folder)
      if jax.process_index() == 0:
        (recorded,) = folder.rglob("*.xplane.pb")
        report = summary(jax.profiler.ProfileData.from_file(str(recorded)), programs, seconds, last - first + 1)
        self._note(f"Steps {first} to {last} took {seconds:.3f} s (xprof --logdir={self._folder})\n{report}")
      self.close()

  def close(self) -> None:
    """Stops and discards an unfinished recording at the end of the run."""
    running, self._running = self._running, None
    if running is not None:
      if self._wanted is not None:
        self._wanted = None
        with contextlib.suppress(Exception):
          jax.profiler.stop_trace()
      running.cleanup()

  def _keep(self, recorded: pathlib.Path) -> None:
    """Copies the trace into the run folder: jax.profiler cannot write to every bucket."""
    for path in recorded.rglob("*"):
      if path.is_file():
        copy = self._folder / path.relative_to(recorded).as_posix()
        copy.parent.mkdir(parents=True, exist_ok=True)
        epath.Path(path).copy(copy, overwrite=True)

  @contextlib.contextmanager
  def _failing(self) -> Generator[None]:
    """Profiling never fails a run; errors are logged."""
    try:
      yield
    except Exception as error:
      self._note(f"The profile failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
      self.close()
      self._wanted = None
