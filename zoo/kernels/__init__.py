"""Kernels for the costly layers on a mesh: attention and mixtures of experts."""

from zoo.kernels.attention import KERNELS, Kernel, Notes, with_kernels

__all__ = ["KERNELS", "Kernel", "Notes", "with_kernels"]
