"""Real weights, for tests that need them: as `scripts/fetch.py` leaves them, fetched if they are not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from zoo.data.cache import locked

FETCH = Path(__file__).parent.parent / "scripts" / "fetch.py"
CACHE = Path.home() / ".cache" / "zoo"  # Where the script puts them, whatever ZOO_CACHE says.
MINILM = CACHE / "all-MiniLM-L6-v2"


def minilm() -> Path:
  """The folder of the MiniLM sentence encoder; leaves the test out where it is neither there nor to be had."""
  with locked(CACHE / "fetch.lock"):
    if not (MINILM / "model.safetensors").exists():
      try:
        command = [sys.executable, FETCH, "--only=minilm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
      except (subprocess.SubprocessError, OSError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().split("\n")[-1]
        pytest.skip(f"left out: the weights of MiniLM are not in {MINILM} and cannot be fetched ({reason})")
  return MINILM
