"""Autoregressive generation: the prompt in one forward pass, then one token at a time with a key-value cache.

generate(model, params, tokens, ...)    greedy, sampled and beam search, of decoders and encoder-decoders
prefill, decode_step, grow              its pure building blocks, for custom loops
sample                                  one draw from logits
speculate                               speculative decoding with a small draft model
zoo.generate.rules                      logits processors: penalties, forced tokens
zoo.generate.beams                      beam search
"""

from zoo.generate.decoding import generate
from zoo.generate.sampling import sample
from zoo.generate.speculation import speculate
from zoo.generate.steps import decode_step, grow, prefill

__all__ = ["decode_step", "generate", "grow", "prefill", "sample", "speculate"]
