import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.convert import decoders
from tests.convert.decoders import logits
from tests.convert.parity import Case, check, to_torch, tokens

SMALL = dict(vocab_size=37, n_positions=19, n_embd=12, n_layer=3, n_head=3, pad_token_id=2)
ODD = dict(
  vocab_size=41, n_positions=11, n_embd=20, n_layer=2, n_head=5, afn="relu", layer_norm_epsilon=0.03,
  tie_word_embeddings=False,
)  # fmt: skip


def case(name, cls, config):
  return decoders.case(name, cls, "OpenAIGPTConfig", config, last_is_normed=False)


def choices(name, config):
  ids = tokens(config["vocab_size"], 2, 3, 5)
  read = lambda rng: rng.integers(0, 5, (2, 3))
  return Case(
    f"OpenAIGPTDoubleHeadsModel-{name}", "OpenAIGPTDoubleHeadsModel", "OpenAIGPTConfig", config,
    ours=lambda rng: ((ids(rng),), {"read": jnp.asarray(read(rng))}),
    theirs=lambda rng: {"input_ids": to_torch(ids(rng)), "mc_token_ids": to_torch(read(rng))},
    outputs={
      "logits": (lambda out: out["logits"], lambda out: out.mc_logits),
      "lm": (lambda out: out["lm"], lambda out: out.logits),
    },
    hidden=(),  # The reference reshapes the last of them.
  )  # fmt: skip


CASES = [case("small", f"OpenAIGPT{ending}", SMALL) for ending in ("LMHeadModel", "Model")]
CASES += [case("small", "OpenAIGPTForSequenceClassification", {**SMALL, "num_labels": 4, "afn": "swish"})]
CASES += [case("odd", "OpenAIGPTLMHeadModel", ODD), choices("small", SMALL), choices("odd", ODD)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


def test_names_of_the_first_files_are_read(tmp_path):
  decoders.save(tmp_path, "OpenAIGPTLMHeadModel", "OpenAIGPTConfig", SMALL)
  want = logits(tmp_path)
  tensors = {
    name.removeprefix("transformer."): array for name, array in load_file(tmp_path / "model.safetensors").items()
  }
  tensors["h.0.attn.bias"] = np.ones((1, 1, 19, 19), np.float32)
  save_file(tensors, tmp_path / "model.safetensors")
  np.testing.assert_array_equal(logits(tmp_path), want)
