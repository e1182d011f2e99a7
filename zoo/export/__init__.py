"""Models as programs that run without the zoo: `jax.export` files, weights beside them, and what they take and give.

  embed.jax, embed_text.jax, embed_image.jax    of an encoder: vectors, as `zoo.embed` computes them
  prefill.jax, decode.jax                       of a model that writes: a prompt, then one token at a time with a cache
  weights.safetensors                           the first argument of every program, name -> array
  signature.json, README.md                     names, dtypes and shapes of all arguments and results; how to call them

A program is StableHLO for CPUs, TPUs and CUDA GPUs at once. Weights lie beside the programs, not in them: prefill and
decode share them, they can be sharded or replaced by a fine-tuned copy, and a program stays some hundred kB. Attention
is dense everywhere: kernels of one platform (Pallas, cuDNN) would tie a file to it.
"""

from zoo.export.programs import export

__all__ = ["export"]
