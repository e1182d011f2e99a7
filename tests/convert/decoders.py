"""Shared parts of the tests that compare decoders with their references."""

import json

import jax.numpy as jnp
import numpy as np

import zoo
from tests.convert.parity import Case, applied, reference, to_torch, tokens
from zoo.build import sizes_of
from zoo.hub import tables
from zoo.hub.files import open_tensors
from zoo.hub.loading import read_params

OUTPUTS = {
  "LMHeadModel": {"logits": (lambda out: out, lambda out: out.logits)},
  "ForCausalLM": {"logits": (lambda out: out, lambda out: out.logits)},
  "ForSequenceClassification": {"logits": (lambda out: out["logits"], lambda out: out.logits)},
  "ForTokenClassification": {"logits": (lambda out: out["logits"], lambda out: out.logits)},
  "ForQuestionAnswering": {
    "start": (lambda out: out["start"], lambda out: out.start_logits),
    "end": (lambda out: out["end"], lambda out: out.end_logits),
  },
  "Model": {"hidden": (lambda out: out["hidden"], lambda out: out.last_hidden_state)},
}


def case(name, cls, config_cls, config, length=7, **options):
  """Two texts, the second of which is padded at its end where the config has a token for that."""
  pad = config.get("pad_token_id")

  def inputs(rng):
    tokens_drawn = tokens(config["vocab_size"], 2, length)(rng)
    valid = np.ones(tokens_drawn.shape, bool)
    if pad is not None:
      valid[1, 4:] = False
      tokens_drawn[1, 4:] = pad
    return tokens_drawn, valid

  def ours(rng):
    tokens_drawn, valid = inputs(rng)
    return (tokens_drawn,), {"valid": jnp.asarray(valid)}

  def theirs(rng):
    tokens_drawn, valid = map(to_torch, inputs(rng))
    return {"input_ids": tokens_drawn, "attention_mask": valid}

  outputs = next(outputs for ending, outputs in OUTPUTS.items() if cls.endswith(ending))
  return Case(
    f"{cls}-{name}", cls, config_cls, config, ours, theirs, outputs, **{"last_is_normed": True, **options},
  )  # fmt: skip


def save(folder, cls, config_cls, config):
  """A random reference in a folder -> its config.json, parsed."""
  reference(case("", cls, config_cls, config)).save_pretrained(folder)
  return json.loads((folder / "config.json").read_text())


def logits(folder, scan=False, **options):
  """Of seven tokens, by the layers as loaded, or all of them scanned."""
  model, params = zoo.load(folder, **options)
  if scan:
    family = model.spec["family"]
    model = zoo.build(family, **{**sizes_of(model), "scan": True})
    params = read_params(open_tensors(folder), tables.of_family(family), model, str(folder))
    assert "layers" in params["stack"]
  out = applied(model, params, np.arange(7)[None] + 3)
  return out["logits"] if isinstance(out, dict) else out
