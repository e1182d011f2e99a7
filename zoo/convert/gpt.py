"""GPT-2 as the hub has it: https://huggingface.co/openai-community/gpt2. Its `Conv1D` keeps kernels as [in, out]."""

from zoo.convert.rules.layouts import Layout, Rule, embedding, norm
from zoo.convert.rules.options import ACTIVATIONS, Key, Options, entries

MODEL_TYPES = ("gpt2",)
HEADS = {None: ("GPT2LMHeadModel", "GPT2Model")}
PREFIX = "transformer."
TIED = {"lm_head.weight": "transformer.wte.weight"}
IGNORED = (r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",)  # Masks, which old versions saved as buffers.

KEYS = (
  Key("vocab_size", "vocab_size", 50257),
  Key("n_positions", "max_length", 1024),
  Key("n_embd", "dim", 768),
  Key("n_layer", "depth", 12),
  Key("n_head", "num_heads", 12),
  Key("activation_function", "activation", "gelu_new", ACTIVATIONS),
  Key("layer_norm_epsilon", "epsilon", 1e-5),
  Key("resid_pdrop", "dropout", 0.1),
)


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  found = options.sizes(KEYS)
  found["mlp_dim"] = options.take("n_inner", 4 * found["dim"])
  options.must_be("scale_attn_weights", True)
  options.must_be("scale_attn_by_inverse_layer_idx", False)
  options.must_be("tie_word_embeddings", True)
  options.must_be("add_cross_attention", False)
  # The same sums in another order; an old name of n_positions; rates that differ only in training; a head of its own.
  options.ignore("reorder_and_upcast_attn", "n_ctx", "attn_pdrop", "embd_pdrop")
  options.ignore("summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels")
  options.ignore("summary_first_dropout")
  return found


def config(sizes):
  """-> config.json"""
  own = {
    "n_inner": sizes["mlp_dim"] or 4 * sizes["dim"],
    "embd_pdrop": sizes["dropout"],
    "attn_pdrop": sizes["dropout"],
  }
  return {"model_type": "gpt2", "tie_word_embeddings": True, **entries(KEYS, sizes), **own}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  found = []
  for i in range(sizes["depth"]):
    found += layer(f"stack/layer_{i}", f"transformer.h.{i}", sizes["dim"])
  found += embedding("embed", "transformer.wte") + embedding("positions", "transformer.wpe")
  return found + norm("norm", "transformer.ln_f")


def layer(ours, theirs, dim):
  """One layer, of GPT too: query, key and value lie side by side in one matrix."""
  found, to_heads, from_heads = [], Layout(((0,), (1, 2))), Layout(((0, 1), (2,)))
  for part, name in enumerate(("query", "key", "value")):
    at, fused = f"{ours}/self_attention/{name}", f"{theirs}.attn.c_attn"
    found += [Rule(f"{at}/kernel", f"{fused}.weight", to_heads, stretch=(1, part * dim, 3 * dim))]
    found += [Rule(f"{at}/bias", f"{fused}.bias", Layout(((0, 1),)), stretch=(0, part * dim, 3 * dim))]
  found += [Rule(f"{ours}/self_attention/out/kernel", f"{theirs}.attn.c_proj.weight", from_heads)]
  found += [Rule(f"{ours}/self_attention/out/bias", f"{theirs}.attn.c_proj.bias")]
  for part, name in (("up", "c_fc"), ("down", "c_proj")):
    found += [Rule(f"{ours}/feed_forward/{part}/kernel", f"{theirs}.mlp.{name}.weight")]
    found += [Rule(f"{ours}/feed_forward/{part}/bias", f"{theirs}.mlp.{name}.bias")]
  return found + norm(f"{ours}/attention_norm", f"{theirs}.ln_1") + norm(f"{ours}/mlp_norm", f"{theirs}.ln_2")
