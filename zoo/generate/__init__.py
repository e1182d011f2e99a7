"""Text, token by token: the prompt in one pass; then, with keys and values cached, each token costs one position.

generate(model, params, tokens, ...)    greedy, sampled and beam search, of decoders and encoder-decoders
prefill, decode_step, grow              the pure functions it is made of, for a loop of one's own
sample                                  one draw from logits
zoo.generate.rules                      what changes logits before a token is chosen: penalties, forced tokens
zoo.generate.beams                      beam search
"""

from zoo.generate.decoding import generate
from zoo.generate.sampling import sample
from zoo.generate.steps import decode_step, grow, prefill

__all__ = ["decode_step", "generate", "grow", "prefill", "sample"]
