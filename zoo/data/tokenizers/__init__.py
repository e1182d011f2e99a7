"""Text <-> token ids: `tokenizer("gpt2").encode("Hello")`, or the tokenizer in a published model's folder."""

from zoo.data.tokenizers.named import tokenizer

__all__ = ["tokenizer"]
