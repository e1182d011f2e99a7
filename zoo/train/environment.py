"""The environment of a run: versions, devices, and git commit."""

import importlib.metadata
import pathlib
import platform
import subprocess
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "libtpu")


def environment() -> dict[str, Any]:
  """{"python", "system", "devices", "hosts", "commit", package: version ...}, all str, without missing entries."""
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
  """The git commit of this code, with "changed" if files differ from it; "" outside of a checkout."""
  folder = pathlib.Path(__file__).parent

  def git(*arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

  try:
    return git("rev-parse", "--short=12", "HEAD") + (" changed" if git("status", "--porcelain", "-uno") else "")
  except (OSError, subprocess.SubprocessError):
    return ""
