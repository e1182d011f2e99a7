"""Keeps libtpu from complaints about a machine that has no TPU."""

import os
import pathlib

# Answers what libtpu would ask the machine for, in vain.
NO_TPU = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5e-1", "TPU_WORKER_HOSTNAMES": "localhost"}


def silence_libtpu(root: str = "/") -> None:
  """Spares a machine without TPUs, where libtpu is installed to plan, its complaints about metadata that is not there.

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
