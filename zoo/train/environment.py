"""What a run was computed with: versions, devices, and which state of the code."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "libtpu")


def environment() -> dict[str, Any]:
  """{"python", "system", "devices", "hosts", "commit", package: version ...}, all texts, without what is not here."""
  devices = jax.devices()
  details = {
    "python": platform.python_version(),
    "system": platform.platform(),
    "devices": f"{len(devices)} x {devices[0].device_kind}",
    "hosts": str(jax.process_count()),
    "commit": commit(),
  }
  installed = {package.metadata["Name"].lower(): package.version for package in importlib.metadata.distributions()}
  details |= {name: installed.get(name, "") for name in PACKAGES}
  return {name: value for name, value in details.items() if value}


def commit() -> str:
  """Of the checkout that this code is in, with "changed" where files differ from it; "" if it is in none."""
  folder = pathlib.Path(__file__).parent

  def git(*arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

  try:
    return git("rev-parse", "--short=12", "HEAD") + (" changed" if git("status", "--porcelain", "-uno") else "")
  except (OSError, subprocess.SubprocessError):
    return ""
