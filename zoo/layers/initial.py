"""Initializers.

The same numbers give the same function at every call, so that two models built alike are equal and jit compiles once.
"""

import functools

import flax.linen as nn

normal = functools.cache(nn.initializers.normal)
truncated_normal = functools.cache(nn.initializers.truncated_normal)  # cut at two standard deviations, not rescaled
constant = functools.cache(nn.initializers.constant)
lecun_normal = functools.cache(nn.initializers.lecun_normal)
xavier_uniform = functools.cache(nn.initializers.xavier_uniform)
orthogonal = functools.cache(nn.initializers.orthogonal)
variance_scaling = functools.cache(nn.initializers.variance_scaling)
zeros = nn.initializers.zeros_init()
