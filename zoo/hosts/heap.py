"""The heap of a process that computes on CPUs: memory once freed is kept for the next step."""

import ctypes
import pathlib
import platform

# Of glibc's malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8
SETTINGS = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**26}
ACCELERATORS = ("dev/accel*", "dev/vfio/*", "dev/nvidia*", "dev/kfd")


def keep_freed_memory(root: str = "/") -> bool:
  """Has glibc keep freed memory instead of returning it to the kernel -> whether it does from now on.

  XLA's CPU backend takes the temporaries of a program as one block and frees it afterwards. glibc returns such a block
  to the kernel, which clears every page of it anew in each step: a tenth of the time of a small model. To be called
  before JAX looks for devices, whose threads would else have heaps of their own. The process then never shrinks.

  Nothing is changed with another C library, or if there may be an accelerator (a device file of a TPU or GPU), where
  temporaries are on the device.
  """
  if platform.libc_ver()[0] != "glibc" or any(any(pathlib.Path(root).glob(name)) for name in ACCELERATORS):
    return False
  mallopt = ctypes.CDLL(None).mallopt
  return all([mallopt(option, value) == 1 for option, value in SETTINGS.items()])
