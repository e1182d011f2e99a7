"""Silences libtpu on machines without a TPU."""

import os
import pathlib

# Answers to libtpu's metadata queries, which would fail.
NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5e-1", "TPU_WORKER_HOSTNAMES": "localhost"}


def silence_libtpu(root: str = "/") -> None:
  """Silences libtpu's errors about missing metadata on machines without TPUs, where it is installed for planning.

  To be called before JAX looks for devices. Nothing is changed if there may be a TPU: if the PCI bus shows a
  device of Google's, as JAX itself checks, or if there is a device file of one.
  """
  top = pathlib.Path(root)
  vendors = top.glob("sys/bus/pci/devices/*/vendor")
  if any(vendor.read_text().strip() == "0x1ae0" for vendor in vendors) or [
    *top.glob("dev/accel*"),
    *top.glob("dev/vfio/*"),
  ]:
    return
  for name, value in NO_TPU.items():
    os.environ.setdefault(name, value)
