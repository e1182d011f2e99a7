"""Every test, and every process that a test starts: 8 simulated devices, quick compilation, strict broadcasting."""

import gc
import importlib.metadata
import os
import signal
from pathlib import Path

import pytest

from tests import budget
from zoo import progress

# Set before jax is imported, as variables of the environment, so that processes which tests start inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
# Programs are small: cut into 32 pieces, as XLA does for its threads, they take a third longer to compile.
flags = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
flags.append("--xla_cpu_parallel_codegen_split_count=1")
if tuple(map(int, importlib.metadata.version("jax").split(".")[:2])) < (0, 11):
  # The older emitters of XLA take 40 % of the time; jax 0.12 no longer has them, and stops at flags it does not know.
  flags.append("--xla_cpu_use_fusion_emitters=false")
for flag in flags:
  if flag.split("=")[0] not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# torch's threads wait for each other longer than its tiny products take.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Compiled programs are kept between runs of the suite, however small they are.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent.parent / ".cache" / "jax"))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# As in pyproject.toml, for the processes that tests start and whose words they look at.
os.environ["PYTHONWARNINGS"] = "ignore:Error reading persistent compilation cache entry:UserWarning"

# In the background of a script Ctrl-C is ignored, and processes that tests start would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
  signal.signal(signal.SIGINT, signal.default_int_handler)

# Tracing makes many objects and little garbage; with torch and JAX loaded a collection looks at millions of them.
gc.set_threshold(20_000, 50, 100)

MOST_STRETCHES = 10_000


progress.FIRST = 1e6  # Seconds: reports depend on how busy the machine is, and tests look at what is printed.


def pytest_addoption(parser):
  parser.addoption("--leak-table", metavar="FILE", help="write the table of tests/test_leaks.py to this file")
  parser.addoption("--family", help="only the tests of this family, wherever they are, and what they cost")
  parser.addoption(
    "--placements", type=int, default=2, help="how many random placements tests/verify/test_check.py compares"
  )


def pytest_configure(config):
  files = (Path(__file__).parent.parent / "zoo" / "models").glob("*.py")
  families = {file.stem for file in files if f"\ndef {file.stem}(" in file.read_text()}
  family = config.getoption("--family", None)
  if family not in {None, *families}:
    raise pytest.UsageError(f"There is no family {family!r}. There are: {', '.join(sorted(families))}.")
  config.pluginmanager.register(budget.Budget(families, family))


def pytest_sessionfinish(session):
  file = session.config.getoption("--leak-table", None)
  if file:
    from tests import leak_table

    if leak_table.SEEN:  # In one process only: with several, each has a part of the results.
      Path(file).write_text(leak_table.replaced(Path(file).read_text()))


def pytest_collection_modifyitems(config, items):
  """Runs slow tests last, so that failures show early; of these the slowest first, to balance the workers."""

  def place(item):
    slow = item.get_closest_marker("slow")
    return (slow is not None, -slow.kwargs.get("minutes", 0) if slow else 0)

  items.sort(key=place)
  if family := config.getoption("--family", None):
    items[:] = [item for item in items if budget.families_of(item.nodeid, {family})]


@pytest.fixture(autouse=True, scope="session")
def nothing_is_kept_that_nobody_reads():
  """Leaves out the cache of compiled programs in CI, which starts with an empty one: hardly a test compiles what
  another one did, and writing takes a fifteenth of the time. Runs that tests start use it: a resumed one reads."""
  import jax

  jax.config.update("jax_enable_compilation_cache", "CI" not in os.environ)
  yield


@pytest.fixture(autouse=True, scope="module")
def few_programs_are_held():
  """Forgets compiled programs before Linux runs out of places for them: a process may hold 65,530 stretches of memory,
  a program takes about 12, and XLA crashes where it gets none. Two thousand of them also hold gigabytes."""
  yield
  held = Path("/proc/self/maps")
  if held.exists() and held.read_bytes().count(b"\n") > MOST_STRETCHES:
    import jax

    jax.clear_caches()
