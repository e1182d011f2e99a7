import subprocess
import sys

import pytest

from zoo.hosts.heap import keep_freed_memory

FAULTS = """
import resource
from zoo.hosts.heap import keep_freed_memory
import jax, jax.numpy as jnp
assert keep_freed_memory()
run = jax.jit(lambda x: (x @ x.T).max(0))  # With a temporary of 64 MB.
x = jnp.ones((4096, 8))
faults = []
for _ in range(6):
  run(x).block_until_ready()
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(faults[-1] - faults[0])
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_no_page_of_a_step_is_cleared_anew():
  """Without it, it is a thousand pages and more, in one of the steps or in all."""
  done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
  assert int(done.stdout) < 200


def test_hosts_of_accelerators_give_memory_back(tmp_path):
  (tmp_path / "dev").mkdir()
  (tmp_path / "dev/nvidia0").touch()
  assert not keep_freed_memory(str(tmp_path))
