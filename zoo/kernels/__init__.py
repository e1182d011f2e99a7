"""Kernels for the costly layers on a mesh: attention, mixtures of experts, and the backward pass of dense layers."""

from zoo.kernels.attention import KERNELS, Kernel, Notes, with_kernels
from zoo.kernels.backward import with_backward

__all__ = ["KERNELS", "Kernel", "Notes", "with_backward", "with_kernels"]
