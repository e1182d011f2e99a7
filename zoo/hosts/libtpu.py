"""Silences libtpu on machines without a TPU."""

import os
import pathlib

# Answers what libtpu would ask the machine for, in vain.
NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5e-1", "TPU_WORKER_HOSTNAMES": "localhost"}


def silence_libtpu(root: str = "/") -> None:
  """Silences libtpu's errors about missing metadata on machines without TPUs, where it is installed for planning.

  To be called before JAX looks for devices. Where a TPU may be nothing is changed: that is where the PCI bus shows a
  device of Google's, which is how JAX itself tells, or where there is a device file of one.
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
