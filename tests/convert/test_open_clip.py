"""CLIP in open_clip's layout, written out of transformers' own: the same weights, the same numbers."""

import json

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

import zoo
from tests.convert.parity import GRADIENTS, VALUES, distance

WIDE = dict(embed_dim=10, vision_cfg=dict(image_size=21, layers=2, width=12, head_width=4, patch_size=7))
TEXT = dict(context_length=11, vocab_size=37, width=15, heads=5, layers=2, mlp_ratio=2.0)


def reference(quick, eps):
  act = {"hidden_act": "quick_gelu" if quick else "gelu", "layer_norm_eps": eps}
  text = dict(vocab_size=37, max_position_embeddings=11, hidden_size=15, num_hidden_layers=2, num_attention_heads=5)
  image = dict(image_size=21, patch_size=7, hidden_size=12, num_hidden_layers=2, num_attention_heads=3)
  config = transformers.CLIPConfig(
    text_config={**text, "intermediate_size": 30, "eos_token_id": 2, **act},  # 2: read at the largest token.
    vision_config={**image, "intermediate_size": 48, **act},
    projection_dim=10,
  )
  torch.manual_seed(0)
  model = transformers.CLIPModel(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn_like(parameter))
  return model


def tower(model, theirs, front):
  """The layers of one of its towers as torch's MultiheadAttention has them."""
  state, found = model.state_dict(), {}
  for i in range(2):
    at, to = f"{theirs}.encoder.layers.{i}", f"{front}transformer.resblocks.{i}"
    for end in ("weight", "bias"):
      packed = [state[f"{at}.self_attn.{name}_proj.{end}"] for name in "qkv"]
      found[f"{to}.attn.in_proj_{end}"] = torch.cat(packed)
      pairs = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
      pairs |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
      found |= {f"{to}.{new}.{end}": state[f"{at}.{old}.{end}"] for old, new in pairs.items()}
  return found


def written(model):
  """state dict of transformers -> of open_clip."""
  state = model.state_dict()
  found = tower(model, "vision_model", "visual.") | tower(model, "text_model", "")
  at, text = "vision_model.embeddings", "text_model"
  for end in ("weight", "bias"):
    found[f"visual.ln_pre.{end}"] = state[f"vision_model.pre_layrnorm.{end}"]
    found[f"visual.ln_post.{end}"] = state[f"vision_model.post_layernorm.{end}"]
    found[f"ln_final.{end}"] = state[f"{text}.final_layer_norm.{end}"]
  return found | {
    "visual.class_embedding": state[f"{at}.class_embedding"],
    "visual.conv1.weight": state[f"{at}.patch_embedding.weight"],
    "visual.positional_embedding": state[f"{at}.position_embedding.weight"],
    "visual.proj": state["visual_projection.weight"].T,
    "positional_embedding": state[f"{text}.embeddings.position_embedding.weight"],
    "token_embedding.weight": state[f"{text}.embeddings.token_embedding.weight"],
    "text_projection": state["text_projection.weight"].T,
    "logit_scale": state["logit_scale"],
  }


@pytest.mark.parametrize("quick, eps", [(True, 1e-5), (False, 0.02)], ids=["quick_gelu", "gelu"])
def test_equals_the_reference(quick, eps, tmp_path):
  there = reference(quick, eps)
  save_file(
    {name: tensor.contiguous() for name, tensor in written(there).items()}, tmp_path / "open_clip_model.safetensors"
  )
  norms = {} if eps == 1e-5 else {"norm_kwargs": {"eps": eps}}
  model = {**WIDE, "text_cfg": TEXT | norms, "vision_cfg": WIDE["vision_cfg"] | norms}
  model |= {"quick_gelu": True} if quick else {}
  (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
  model, params = zoo.load(tmp_path)
  rng = np.random.default_rng(0)
  image = rng.normal(size=(2, 21, 21, 3)).astype(np.float32)
  tokens = rng.integers(1, 36, (3, 11)).astype(np.int32)
  tokens[:, 6] = 36
  mix = rng.normal(size=(2, 3)).astype(np.float32)

  @jax.jit
  @jax.value_and_grad
  def run(params):
    out = model.apply({"params": params}, image, tokens)
    return (out["scale"] * (out["image"] @ out["text"].T) * mix).sum()

  value, gradient = run(params)
  pixels = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
  want = (there(torch.from_numpy(tokens.astype(np.int64)), pixels).logits_per_image * torch.from_numpy(mix)).sum()
  want.backward()
  assert abs(float(value) - float(want.detach())) < VALUES * abs(float(want.detach()))
  rows = {"text/embed/embedding": there.text_model.embeddings.token_embedding.weight.grad}
  rows |= {"image/projection/kernel": there.visual_projection.weight.grad.T}
  for path, grad in rows.items():
    tree = gradient
    for name in path.split("/"):
      tree = tree[name]
    assert distance(tree, grad.numpy()) < GRADIENTS
