import subprocess
import sys

import pytest

from zoo.hosts.heap import keep_freed_memory

FAULTS = """
import resource, sys
from zoo.hosts.heap import keep_freed_memory
import jax, jax.numpy as jnp
assert sys.argv[1] == "given back" or keep_freed_memory()
run = jax.jit(lambda x: (x @ x.T).max(0))  # With a temporary of 64 MB.
x = jnp.ones((4096, 8))
faults = []
for _ in range(3):
  run(x).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[-2])
"""


def faults(kept):
  """How often the kernel clears pages during a step."""
  done = subprocess.run([sys.executable, "-c", FAULTS, kept], capture_output=True, text=True, check=True)
  return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_no_page_of_a_step_is_cleared_anew():
  assert 10 * faults("kept") < faults("given back")


def test_hosts_of_accelerators_give_memory_back(tmp_path):
  (tmp_path / "dev").mkdir()
  (tmp_path / "dev/nvidia0").touch()
  assert not keep_freed_memory(str(tmp_path))
