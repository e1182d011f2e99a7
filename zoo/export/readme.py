"""The README.md beside exported programs."""

from collections.abc import Mapping
from typing import Any

CALL = """import json
import jax
from jax import export
from safetensors.flax import load_file

weights = load_file("weights.safetensors")
programs = json.load(open("signature.json"))["programs"]
load = lambda name: jax.jit(export.deserialize(bytearray(open(programs[name]["file"], "rb").read())).call)
"""

EMBED = """{name} = load("{name}")
vectors = {name}(weights, {arguments})["vectors"]  # float32 [batch, dim]
"""

WRITE = """prefill, decode = load("prefill"), load("decode")
out = prefill(weights, tokens, valid)  # int32, bool [batch, length]; valid: True = a real token
state, position = out["state"], out["position"]
token = out["logits"].argmax(-1).astype("int32")
for _ in range(steps):
  out = decode(weights, state, token, position)
  state, position, token = out["state"], position + 1, out["logits"].argmax(-1).astype("int32")
"""


EXAMPLE = """import numpy as np

"""


def example(signature: Mapping[str, Any]) -> str:
  """Python that makes values of the right dtypes and shapes for the arguments of a signature's programs."""
  limit = signature.get("max_length") or 8
  writes = signature["does"] == "generate"
  programs = [signature["programs"]["prefill"]] if writes else signature["programs"].values()
  sizes = {"batch": 2, "length": max(1, min(5, limit // 2))}
  lines = {name: f"{name} = {_ones(about, sizes)}" for each in programs for name, about in each["arguments"].items()}
  return EXAMPLE + "\n".join([*lines.values(), *([f"steps = {max(1, min(3, limit // 2))}"] if writes else [])])


def _ones(about: Mapping[str, Any], sizes: Mapping[str, int]) -> str:
  """An expression of ones, or of a dict of such arrays."""
  if not isinstance(about.get("dtype"), str):
    return f"{{{', '.join(f'{name!r}: {_ones(each, sizes)}' for name, each in about.items())}}}"
  return f"np.ones({tuple(sizes.get(size, size) for size in about['shape'])}, {about['dtype']!r})"


def readme(signature: Mapping[str, Any]) -> str:
  """Markdown: how the programs of this signature are called."""
  if signature["does"] == "generate":
    calls = [WRITE]
    limit = f"Prompt and answer together have at most {signature['max_length']} tokens."
    if "start_token" in signature:
      limit = f"`tokens` are what is answered. An answer has at most {signature['max_length']} tokens."
  else:
    programs = signature["programs"].items()
    calls = [EMBED.format(name=name, arguments=", ".join(program["arguments"])) for name, program in programs]
    limit = f"A text has at most {signature['max_length']} tokens." if "max_length" in signature else ""
  lines = [
    f"# {signature['family']}, exported",
    "",
    f"Programs of `jax.export` for {', '.join(signature['platforms'])}. They need jax, flatbuffers and safetensors:",
    "",
    "```python",
    "\n".join([CALL, *calls]).rstrip(),
    "```",
    "",
    "Values to try it with; a tokenizer makes tokens, and images are normalised as the model's processor does it:",
    "",
    "```python",
    example(signature),
    "```",
    "",
    "`signature.json` has names, dtypes and shapes of arguments and results; a size that is a word may be any.",
    *([limit] if limit else []),
    f"Written with jax {signature['jax']}; jax reads such files for six months or more (jax.export, compatibility).",
    "Attention is dense on every platform.",
  ]
  return "\n".join(lines) + "\n"
