# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Old Flax code keeps running
#
# Transformers 5 has no Flax classes, and those of transformers 4 break one by one with newer JAX. `zoo.compat`
# provides them under their old names: arguments, outputs and parameter trees are unchanged, and the model underneath
# is the zoo's. This notebook runs the two text encoders of a FLUX pipeline, at a tiny size and offline.
#
# There are CLIP, BERT, RoBERTa, XLM-R, DistilBERT, T5, mT5, BART, Marian, Whisper, GPT-2, Llama, Mistral, Gemma, ViT
# and DINOv2, each with its heads, base class and modules, and the auto classes.
#
# | what you wrote | what it is now |
# |---|---|
# | `from transformers import FlaxCLIPTextModel, FlaxT5EncoderModel` | the same after `zoo.compat.install()` |
# | `from_pretrained(id, subfolder=..., from_pt=True, dtype=..., _do_init=False)` | the same, but for pickles |
# | `model(ids, attention_mask=..., params=params)`, `.params`, `.config`, `.init_weights` | the same, compiled |
# | `model.module.apply({"params": params}, ids, mask, positions)` | the same, for jit, grad, vmap and pmap |
# | `params["text_model"][...]["kernel"]` | the same |
# | `out[0]`, `out.pooler_output`, `out["hidden_states"][-2]`, `return_dict=False` | the same |
# | `model.save_pretrained(folder)` | the same; safetensors, which `zoo.load` and torch read |
# | `self.vision_model = FlaxCLIPVisionModule(config)` in a Linen module of yours | the same |
# | `model.generate(ids, max_length=..., num_beams=...)`, `init_cache`, `decode` | the same, by `zoo.generate` |
# | `model.push_to_hub(...)`, `head_mask`, cross attention in BERT and GPT-2 | refused in one line |

# %% [markdown]
# ## A folder laid out like a FLUX pipeline
#
# `text_encoder` is a CLIP, `text_encoder_2` a gated T5 in bfloat16. Real ones are
# `black-forest-labs/FLUX.1-dev` with the same subfolders.

# %%
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax.traverse_util import flatten_dict

import zoo
from zoo.compat import FlaxCLIPTextModel, FlaxT5EncoderModel

FLUX = pathlib.Path(tempfile.mkdtemp()) / "flux"
VOCABULARY, END = 258, 257  # bytes, a beginning and an end

clip = zoo.build(
  "clip_text", vocab_size=VOCABULARY, max_length=77, dim=48, depth=3, num_heads=4, eos=END, read_at="eos"
)
t5 = zoo.build(
  "t5",
  vocab_size=VOCABULARY,
  dim=64,
  depth=2,
  num_heads=4,
  head="encoder",
  activation="gelu_tanh",
  gated=True,
  tied=False,
)
for name, model, dtype in (("text_encoder", clip, "float32"), ("text_encoder_2", t5, "bfloat16")):
  params = jax.jit(model.init)(jax.random.key(0), *model.example())["params"]
  zoo.save_hf(FLUX / name, model, jax.tree.map(lambda x, dtype=dtype: x.astype(dtype), params))
print("jax", jax.__version__, "on", jax.devices())
print(*sorted(str(path.relative_to(FLUX)) for path in FLUX.glob("*/*")), sep="\n")

# %% [markdown]
# ## What the pipeline does
#
# Code as written for transformers 4, apart from the import above: CLIP's pooled embedding of the prompt, and T5's
# hidden states of its tokens.

# %%
text_encoder = FlaxCLIPTextModel.from_pretrained(FLUX, subfolder="text_encoder", dtype=jnp.bfloat16)
text_encoder_2, t5_params = FlaxT5EncoderModel.from_pretrained(
  FLUX, subfolder="text_encoder_2", dtype=jnp.bfloat16, _do_init=False
)
text_encoder.params = text_encoder.to_bf16(text_encoder.params)


def tokenize(prompts, length):
  """Bytes, an end and padding, as arrays of numpy."""
  rows = [[VOCABULARY - 2, *prompt.encode()[: length - 2], END] for prompt in prompts]
  ids = np.array([row + [0] * (length - len(row)) for row in rows])
  return ids, np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])


def encode_prompt(prompts, max_sequence_length=96):
  ids, _ = tokenize(prompts, text_encoder.config.max_position_embeddings)
  pooled = text_encoder(ids, params=text_encoder.params, train=False).pooler_output
  ids, _ = tokenize(prompts, max_sequence_length)
  embeds = text_encoder_2(ids, attention_mask=None, params=t5_params, output_hidden_states=False)["last_hidden_state"]
  text_ids = jnp.zeros((*embeds.shape[:2], 3), embeds.dtype)
  return embeds, pooled, text_ids


prompts = ["A cat riding a skateboard", "A dog on a skateboard", "Snow over the hills at night"]
embeds, pooled, text_ids = encode_prompt(prompts)
print("sequence", embeds.shape, embeds.dtype, " pooled", pooled.shape, pooled.dtype)

# %% [markdown]
# ## Parameters in the old names
#
# Code that shards, freezes or edits parameters by name keeps working.

# %%
for name, tree in (("CLIP", text_encoder.params), ("T5", t5_params)):
  paths = flatten_dict(tree, sep="/")
  print(f"{name}: {len(paths)} arrays, {sum(x.size for x in paths.values()):,} numbers")
  print(*(f"  {path:68} {x.shape} {x.dtype}" for path, x in list(paths.items())[:10]), sep="\n")
assert text_encoder.params["text_model"]["encoder"]["layers"]["0"]["self_attn"]["q_proj"]["kernel"].shape == (48, 48)
assert t5_params["encoder"]["block"]["0"]["layer"]["0"]["SelfAttention"]["q"]["kernel"].shape == (64, 64)

# %% [markdown]
# ## `module.apply`, jit and gradients
#
# Pure functions of the parameters, with the old modules' positional arguments. Gradients have the old names as well.


# %%
@jax.jit
def encoders(params, clip_ids, clip_mask, t5_ids, t5_mask):
  positions = jnp.broadcast_to(jnp.arange(clip_ids.shape[1]), clip_ids.shape)
  pooled = text_encoder.module.apply({"params": params["clip"]}, clip_ids, clip_mask, positions)[1]
  sequence = text_encoder_2.module.apply({"params": params["t5"]}, t5_ids, t5_mask).last_hidden_state
  return sequence, pooled


params = {"clip": text_encoder.params, "t5": t5_params}
inputs = (*tokenize(prompts, 77), *tokenize(prompts, 96))
sequence, again = encoders(params, *inputs)
np.testing.assert_allclose(again.astype(jnp.float32), pooled.astype(jnp.float32), atol=0.05)

gradient = jax.grad(lambda params: (encoders(params, *inputs)[1].astype(jnp.float32) ** 2).sum())(params)
scale = gradient["clip"]["text_model"]["final_layer_norm"]["scale"]
print("gradient of final_layer_norm/scale:", scale.shape, scale.dtype)
assert jax.tree.structure(gradient) == jax.tree.structure(params)

# %% [markdown]
# ## The same numbers as the zoo's own models
#
# In float32 old and new calls agree; in bfloat16 they differ by its rounding.

# %% mystnb={"image": {"alt": "Outputs of zoo.compat against those of zoo.load: all on the diagonal."}}
model, ours = zoo.load(FLUX / "text_encoder")
want = jax.jit(model.apply)({"params": ours}, inputs[0])["pooled"]
exact = FlaxCLIPTextModel.from_pretrained(FLUX / "text_encoder")(inputs[0]).pooler_output
print("float32 differs by", float(abs(exact - want).max()))
assert abs(exact - want).max() < 1e-5

plt.figure(figsize=(4, 4))
plt.plot(want.ravel(), exact.ravel(), "o", label="float32")
plt.plot(want.ravel(), pooled.astype(jnp.float32).ravel(), ".", label="bfloat16")
plt.xlabel("zoo.load")
plt.ylabel("zoo.compat")
plt.legend()
plt.show()

# %% [markdown]
# ## Libraries that import from transformers
#
# The pipelines of diffusers and maxdiffusion import the classes from transformers. After `install()` they get these,
# whichever transformers is installed, or none; `uninstall()` undoes it.

# %%
import warnings

import zoo.compat

warnings.filterwarnings("ignore", message="IProgress not found")  # Of tqdm, which transformers imports.
zoo.compat.install()
from transformers import FlaxCLIPTextModel as Imported

print(Imported.__module__, Imported is FlaxCLIPTextModel)
zoo.compat.uninstall()

# %% [markdown]
# ## Inside your own modules
#
# The old modules are Linen modules with the old parameter trees.

# %%
import flax.linen as nn

from zoo.compat import FlaxCLIPTextModule


class Scorer(nn.Module):
  """One score per text."""

  config: zoo.compat.Config

  @nn.compact
  def __call__(self, ids):
    return nn.Dense(1)(FlaxCLIPTextModule(self.config, name="text")(ids).pooler_output)


scorer = Scorer(text_encoder.config)
scores, variables = scorer.init_with_output(jax.random.key(0), inputs[0])
print(scores.shape, *variables["params"], *variables["params"]["text"])

# %% [markdown]
# ## Saving
#
# The saved files are read by the zoo and by torch transformers.

# %%
text_encoder.save_pretrained(FLUX.parent / "tuned")
model, ours = zoo.load(FLUX.parent / "tuned")
print(type(model).__name__, "of", model.spec["family"], *sorted(p.name for p in (FLUX.parent / "tuned").iterdir()))
kernel = ours["text"]["stack"]["layer_0"]["feed_forward"]["up"]["kernel"]
old = text_encoder.params["text_model"]["encoder"]["layers"]["0"]["mlp"]["fc1"]["kernel"]
np.testing.assert_array_equal(kernel, old.astype(jnp.float32))
