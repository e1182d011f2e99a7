"""GPT in the hub's layout: https://huggingface.co/openai-community/openai-gpt. Its `Conv1D` has kernels [in, out]."""

from zoo.convert.gpt import layer
from zoo.convert.rules.layouts import embedding, linear
from zoo.convert.rules.options import Key, Options, entries, named_labels

MODEL_TYPES = ("openai-gpt",)
HEADS = {
  "lm": ("OpenAIGPTLMHeadModel",),
  "multiple_choice": ("OpenAIGPTDoubleHeadsModel",),
  "classify": ("OpenAIGPTForSequenceClassification",),
  None: ("OpenAIGPTModel",),
}
PREFIX = "transformer."
TIED = {"lm_head.weight": "transformer.tokens_embed.weight"}
# Masks and position ids saved as buffers by old versions.
IGNORED = (r"(transformer\.)?h\.\d+\.attn\.bias", r"(transformer\.)?position_ids")

KEYS = (
  Key("vocab_size", "vocab_size", 40478),
  Key("n_positions", "max_length", 512),
  Key("n_embd", "dim", 768),
  Key("n_layer", "depth", 12),
  Key("n_head", "num_heads", 12),
  # The reference's "gelu" is the tanh approximation.
  Key("afn", "activation", "gelu", {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}),
  Key("layer_norm_epsilon", "epsilon", 1e-5),
  Key("resid_pdrop", "dropout", 0.1),
  Key("tie_word_embeddings", "tied", True),
)
SUMMARY = {"summary_type": "cls_index", "summary_use_proj": True, "summary_proj_to_labels": True}


def sizes(options: Options, head, tensors):
  """-> arguments of `zoo.build`."""
  sizes = options.sizes(KEYS) | {"head": head, "pad": options.nullable("pad_token_id")}
  sizes["num_classes"] = options.num_labels() if head == "classify" else None
  if head == "multiple_choice":
    for name, value in SUMMARY.items():
      options.must_be(name, value)
    options.must_be("summary_activation", None)
  # Entries of another head; an old name of n_positions; training-only rates.
  options.ignore(
    *SUMMARY, "summary_activation", "summary_first_dropout", "n_ctx", "n_special", "predict_special_tokens"
  )
  options.ignore("attn_pdrop", "embd_pdrop")
  return sizes


def config(sizes):
  """-> config.json"""
  rates = dict.fromkeys(("embd_pdrop", "attn_pdrop", "summary_first_dropout"), sizes["dropout"])
  labels = {} if sizes["num_classes"] is None else named_labels(sizes["num_classes"])
  return {"model_type": "openai-gpt", "pad_token_id": sizes["pad"], **entries(KEYS, sizes), **rates, **labels}


def rules(sizes):
  """-> rules of zoo/convert/rules/layouts.py"""
  head, rules = sizes["head"], []
  p = "" if head is None else PREFIX
  for i in range(sizes["depth"]):
    rules += layer(f"stack/layer_{i}", f"{p}h.{i}", sizes["dim"])
  rules += embedding("embed", f"{p}tokens_embed") + embedding("positions", f"{p}positions_embed")
  if head in ("lm", "multiple_choice") and not sizes["tied"]:
    rules += linear("logits", "lm_head", bias=False)
  if head == "multiple_choice":
    rules += linear("choose", "multiple_choice_head.summary")
  if head == "classify":
    rules += linear("classify", "score", bias=False)
  return rules
