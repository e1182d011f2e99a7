"""CLIP and SigLIP in open_clip's layout, written out of transformers' own: the same weights, the same numbers."""

import json

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

import zoo
from tests.convert.parity import GRADIENTS, VALUES, distance
from zoo.errors import UserError

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
  state, renamed = model.state_dict(), {}
  for i in range(2):
    at, to = f"{theirs}.encoder.layers.{i}", f"{front}transformer.resblocks.{i}"
    for end in ("weight", "bias"):
      packed = [state[f"{at}.self_attn.{name}_proj.{end}"] for name in "qkv"]
      renamed[f"{to}.attn.in_proj_{end}"] = torch.cat(packed)
      pairs = {"self_attn.out_proj": "attn.out_proj", "layer_norm1": "ln_1", "layer_norm2": "ln_2"}
      pairs |= {"mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
      renamed |= {f"{to}.{new}.{end}": state[f"{at}.{old}.{end}"] for old, new in pairs.items()}
  return renamed


def written(model):
  """state dict of transformers -> of open_clip."""
  state = model.state_dict()
  renamed = tower(model, "vision_model", "visual.") | tower(model, "text_model", "")
  at, text = "vision_model.embeddings", "text_model"
  for end in ("weight", "bias"):
    renamed[f"visual.ln_pre.{end}"] = state[f"vision_model.pre_layrnorm.{end}"]
    renamed[f"visual.ln_post.{end}"] = state[f"vision_model.post_layernorm.{end}"]
    renamed[f"ln_final.{end}"] = state[f"{text}.final_layer_norm.{end}"]
  return renamed | {
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


def siglip(tanh):
  """A tiny SigLIP, and the same as open_clip and timm name its arrays."""
  act, heads = {"hidden_act": "gelu_pytorch_tanh" if tanh else "gelu"}, 16 if tanh else 12
  text = dict(vocab_size=37, max_position_embeddings=7, hidden_size=15, num_hidden_layers=1, num_attention_heads=5)
  image = dict(image_size=15, patch_size=7, hidden_size=2 * heads, num_hidden_layers=2, num_attention_heads=heads)
  config = transformers.SiglipConfig(
    text_config={**text, "intermediate_size": 30, "projection_size": 2 * heads, **act},
    vision_config={**image, "intermediate_size": 20, **act},
  )
  torch.manual_seed(0)
  model = transformers.SiglipModel(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn_like(parameter))
  state, renamed = model.state_dict(), {}
  old = ("layer_norm1", "layer_norm2", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
  new = {
    "text_model": ("text.transformer.resblocks", "ln_1", "ln_2", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"),
    "vision_model": ("visual.trunk.blocks", "norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2"),
  }
  for end in ("weight", "bias"):
    for tower, (to, *names) in new.items():
      packed = f"attn.in_proj_{end}" if tower == "text_model" else f"attn.qkv.{end}"
      for i in range(1 if tower == "text_model" else 2):
        at = f"{tower}.encoder.layers.{i}"
        renamed[f"{to}.{i}.{packed}"] = torch.cat([state[f"{at}.self_attn.{x}_proj.{end}"] for x in "qkv"])
        renamed |= {f"{to}.{i}.{name}.{end}": state[f"{at}.{part}.{end}"] for part, name in zip(old, names)}
    query, key, value = state[f"vision_model.head.attention.in_proj_{end}"].chunk(3)
    pool = "visual.trunk.attn_pool"
    renamed |= {f"{pool}.q.{end}": query, f"{pool}.kv.{end}": torch.cat([key, value])}
    for theirs, name in {
      "vision_model.post_layernorm": "visual.trunk.norm",
      "vision_model.embeddings.patch_embedding": "visual.trunk.patch_embed.proj",
      "vision_model.head.attention.out_proj": f"{pool}.proj",
      "vision_model.head.layernorm": f"{pool}.norm",
      "vision_model.head.mlp.fc1": f"{pool}.mlp.fc1",
      "vision_model.head.mlp.fc2": f"{pool}.mlp.fc2",
      "text_model.final_layer_norm": "text.ln_final",
      "text_model.head": "text.text_projection",
    }.items():
      renamed[f"{name}.{end}"] = state[f"{theirs}.{end}"]
  renamed |= {
    "visual.trunk.attn_pool.latent": state["vision_model.head.probe"],
    "visual.trunk.pos_embed": state["vision_model.embeddings.position_embedding.weight"][None],
    "text.positional_embedding": state["text_model.embeddings.position_embedding.weight"],
    "text.token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
    "logit_scale": state["logit_scale"][0],
    "logit_bias": state["logit_bias"][0],
  }
  return model, {name: tensor.contiguous().clone() for name, tensor in renamed.items()}


SIGLIP_TEXT = dict(
  context_length=7, vocab_size=37, width=15, heads=5, layers=1, mlp_ratio=2.0, no_causal_mask=True, proj_bias=True,
  pool_type="last", norm_kwargs={"eps": 1e-6}, hf_tokenizer_name="any",
)  # fmt: skip
FIRST, SECOND = "vit_base_patch16_siglip_224", "vit_giantopt_patch16_siglip_256"
TANH = {"act_kwargs": {"approximate": "tanh"}}


def siglip_folder(folder, tensors, tower, **text):
  save_file(tensors, folder / "open_clip_model.safetensors")
  vision = dict(image_size=15, timm_model_name=tower, timm_pool="map", timm_proj="none")
  model = dict(init_logit_bias=-10, custom_text=True, vision_cfg=vision, text_cfg={**SIGLIP_TEXT, **text})
  model["embed_dim"] = len(tensors["visual.trunk.norm.bias"])
  (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))


@pytest.mark.parametrize("tanh", [False, True], ids=["first", "second"])
def test_siglip_equals_the_reference(tanh, tmp_path):
  there, tensors = siglip(tanh)
  siglip_folder(tmp_path, tensors, SECOND if tanh else FIRST, **(TANH if tanh else {}))
  model, params = zoo.load(tmp_path)
  assert model.spec["family"] == "siglip" and model.preprocessing["text"] == {"mask": False}
  rng = np.random.default_rng(0)
  image = rng.normal(size=(2, 15, 15, 3)).astype(np.float32)
  tokens = rng.integers(0, 37, (3, 7)).astype(np.int32)
  out = jax.jit(model.apply)({"params": params}, image, tokens)
  pixels = torch.from_numpy(image.transpose(0, 3, 1, 2).copy())
  want = there(torch.from_numpy(tokens.astype(np.int64)), pixels).logits_per_image.detach().numpy()
  assert distance(out["scale"] * (out["image"] @ out["text"].T) + out["bias"], want) < VALUES


@pytest.mark.parametrize(
  "tower, text, message",
  [
    (FIRST, TANH, "the text tower has gelu_tanh, and timm's vit_base_patch16_siglip_224 has gelu. A SigLIP"),
    (SECOND, {}, "the text tower has gelu, and timm's vit_giantopt_patch16_siglip_256 has gelu_tanh. A SigLIP"),
    (FIRST, {"pool_type": "first"}, "pool_type is 'first'.*It has: 'last'"),
    (FIRST, {"no_causal_mask": None}, "no_causal_mask is None.*It has: True"),
    (FIRST, {"proj_type": "none"}, "proj_type is 'none'"),
    (FIRST, {"norm_kwargs": {}}, "norm_kwargs is {}.*1e-06"),
    ("vit_base_patch16_siglip_gap_224", {}, "timm_model_name is 'vit_base_patch16_siglip_gap_224'"),
  ],
)
def test_other_towers_beside_timms_are_refused_by_name(tower, text, message, tmp_path):
  siglip_folder(tmp_path, siglip(False)[1], tower, **text)
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
