"""Old Flax classes against the torch classes that are left: same files, same arguments, same names of outputs."""

import numpy as np
import pytest
import transformers

from tests.compat.cases import CONFIGS, text_inputs
from tests.convert.parity import VALUES, Case, distance, reference, to_torch
from zoo import compat

POSITIONS = np.array([[0, 1, 2, 3, 0, 1, 2, 3], [4, 5, 6, 7, 8, 9, 10, 11]])
PAIRS = ("FlaxT5", "FlaxMT5", "FlaxBart", "FlaxMarian", "FlaxWhisper")  # Encoder-decoders, of texts or sounds.
CROSSING = ("FlaxBert", "FlaxRoberta", "FlaxBart")  # Their decoders attend to encoder outputs.
SOUNDS = np.random.default_rng(2).normal(size=(2, 5, 16)).astype(np.float32)
IMAGES = np.random.default_rng(3).normal(size=(3, 3, 12, 12)).astype(np.float32)


def inputs(name):
  """Inputs of both classes."""
  if any(family in name for family in ("CLIPVision", "ViT", "Dinov2")):
    return {"pixel_values": IMAGES}
  texts = text_inputs(*((2, 3, 8) if name.endswith("MultipleChoice") else (2, 8)))
  if name == "FlaxCLIPModel":
    return {**texts, "pixel_values": IMAGES}
  if any(name.startswith(family) for family in PAIRS) and not any(
    part in name for part in ("EncoderModel", "CausalLM")
  ):
    answers = {f"decoder_{key}": value for key, value in text_inputs(2, 7, seed=4).items()}
    if "Whisper" in name:
      return {"input_features": SOUNDS, **answers, "decoder_position_ids": POSITIONS[:, :7]}
    return {**texts, **answers}
  if name.startswith(("FlaxBert", "FlaxRoberta", "FlaxXLMRoberta")):
    types = CONFIGS[name].get("type_vocab_size", 2)
    texts["token_type_ids"] = np.random.default_rng(1).integers(0, types, texts["input_ids"].shape)
  if name.endswith("-crossing") or name.startswith(CROSSING) and name.endswith("CausalLM"):
    rng = np.random.default_rng(6)
    read = {"encoder_hidden_states": rng.normal(size=(2, 5, 12)).astype(np.float32)}
    texts |= read | {"encoder_attention_mask": np.array([[1] * 5, [1] * 3 + [0] * 2])}
  if name == "FlaxBartForCausalLM":
    return texts
  if not name.startswith(("FlaxT5", "FlaxDistilBert")) and not name.endswith("MultipleChoice"):
    texts["position_ids"] = POSITIONS
  return texts


def settle(model):
  """T5's queries as small as they start, for logits are not scaled; Marian's sinusoids; a bias of the output."""
  for name, parameter in model.named_parameters():
    parameter.mul_(0.5 if name.endswith(".q.weight") else 1)
  for part in model.modules():
    if "Sinusoidal" in type(part).__name__:
      part.weight.copy_(part.create_weight())
  for name, buffer in model.named_buffers():
    if name == "final_logits_bias":
      buffer.normal_()


def worst(ours, theirs):
  """Largest relative difference of outputs that have the same names, in outputs within outputs too."""
  if isinstance(ours, dict):
    # Of the towers within a CLIPModel torch's class calls the projection by that name.
    shared = [name for name in ours if name != "pooler_output" or ours[name].shape == theirs[name].shape]
    return max(worst(ours[name], theirs[name]) for name in shared)
  if isinstance(ours, tuple):
    assert len(ours) == len(theirs)
    return max(map(worst, ours, theirs))
  return distance(ours, theirs.detach().numpy())


@pytest.mark.parametrize("name", CONFIGS)
def test_equals_torch_and_is_read_by_it(name, tmp_path):
  old = getattr(compat, name.partition("-")[0])
  cls = name.partition("-")[0].removeprefix("Flax")
  cls = "BertLMHeadModel" if cls == "BertForCausalLM" else cls
  config_cls = getattr(transformers, cls).config_class.__name__
  there = reference(Case(name, cls, config_cls, CONFIGS[name], None, None, {}, prepare=settle))
  there.save_pretrained(tmp_path / "theirs")
  arguments, watch = inputs(name), {"output_hidden_states": True, "output_attentions": True}
  want = there(**{key: to_torch(value) for key, value in arguments.items()}, **watch)
  model = old.from_pretrained(tmp_path / "theirs", from_pt=True)
  ours = model(**arguments, **watch)
  assert worst(ours, want) < VALUES
  # A config object of transformers works like its file.
  again = old(there.config, _do_init=False)
  assert worst(again(**arguments, params=model.params), want) < VALUES

  model.save_pretrained(tmp_path / "ours")
  back, info = type(there).from_pretrained(tmp_path / "ours", output_loading_info=True, attn_implementation="eager")
  assert not any(info.values()), info
  assert worst(ours, back.eval()(**{k: to_torch(v) for k, v in arguments.items()}, **watch)) < VALUES
