import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.convert.parity import Case, applied, check, distance, intermediates, one_deep, reference, to_torch
from zoo.build import sizes_of
from zoo.errors import UserError
from zoo.hub import tables
from zoo.hub.files import open_tensors
from zoo.hub.loading import read_params

SPECIAL = dict(bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2)
SMALL = dict(
  vocab_size=37, max_position_embeddings=19, hidden_size=12, num_hidden_layers=5, num_attention_heads=3,
  intermediate_size=10, local_attention=4, pad_token_id=1, **SPECIAL,
)  # fmt: skip
ODD = dict(
  vocab_size=41, max_position_embeddings=13, hidden_size=20, num_hidden_layers=4, num_attention_heads=5,
  intermediate_size=17, local_attention=3, pad_token_id=4, norm_eps=0.02, norm_bias=True, attention_bias=True,
  mlp_bias=True, decoder_bias=False, classifier_bias=True, classifier_activation="relu", hidden_activation="silu",
  classifier_pooling="mean", global_attn_every_n_layers=2, global_rope_theta=70.0, local_rope_theta=5.0, **SPECIAL,
)  # fmt: skip
TWO = dict(num_hidden_layers=2)
KINDS = ["sliding_attention", "full_attention", "full_attention"]
ROPES = {
  "full_attention": {"rope_type": "dynamic", "rope_theta": 31.0, "factor": 2.0},
  "sliding_attention": {"rope_type": "linear", "rope_theta": 5.0, "factor": 3.0},
}
HEADS = {
  "Model": {"hidden": "last_hidden_state"},
  "ForMaskedLM": {"mlm": "logits"},
  "ForSequenceClassification": {"logits": "logits"},
  "ForTokenClassification": {"logits": "logits"},
  "ForQuestionAnswering": {"start": "start_logits", "end": "end_logits"},
  "ForMultipleChoice": {"logits": "logits"},
}


BY_TOKEN = ("Model", "ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering")


def real(length):
  """Which tokens are: the second text has padding at both ends."""
  valid = np.ones((2, length), bool)
  valid[1, 7:] = valid[1, 0] = False
  return valid


def case(head, name, config, length=9):
  """Texts, or of multiple choices three each."""
  shape = (2, 3, length) if head == "ForMultipleChoice" else (2, length)
  valid = np.broadcast_to(real(length).reshape(2, *[1] * (len(shape) - 2), length), shape).copy()

  def tokens(rng):
    return np.where(valid, rng.integers(5, config["vocab_size"], shape), config["pad_token_id"] or 0)

  def ours(rng):
    return (jnp.asarray(tokens(rng)),), {"valid": jnp.asarray(valid)}

  def theirs(rng):
    return {"input_ids": to_torch(tokens(rng)), "attention_mask": to_torch(valid)}

  def without_padding(array):
    """Padding without a real token in its window attends to nothing: its outputs and gradients are undefined."""
    kept = real(length).reshape(2, length, *[1] * (array.ndim - 2))
    return array * (kept if isinstance(array, jax.Array) else to_torch(kept))

  def both(name, key):
    picks = (lambda out: out[name], lambda out: getattr(out, key))
    return tuple((lambda out, pick=pick: without_padding(pick(out))) for pick in picks) if head in BY_TOKEN else picks

  # Their first layer is none of our stack; `test_weights_...` compares it.
  return Case(
    f"{head}-{name}", f"ModernBert{head}", "ModernBertConfig", config, ours, theirs,
    {name: both(name, key) for name, key in HEADS[head].items()}, first_hidden=2, last_is_normed=True, weights=(),
  )  # fmt: skip


CASES = [case(head, "small", config) for head, config in one_deep(HEADS, SMALL, 2)]
CASES += [
  case("ForMaskedLM", "odd", ODD),
  case("ForSequenceClassification", "odd", {**ODD, "num_labels": 4, "layer_types": [*KINDS, "full_attention"]}),
  # A local and a global layer: all four are compared above.
  case("ForMultipleChoice", "odd", {**ODD, **TWO, "norm_bias": False, "mlp_bias": False}),
  case("ForTokenClassification", "odd", {**ODD, **TWO, "num_labels": 1, "attention_bias": False, "pad_token_id": None}),
  case("ForQuestionAnswering", "odd", {**ODD, **TWO, "local_attention": 1}),
  case("Model", "ropes", {**SMALL, "layer_types": [*KINDS, *KINDS[:2]], "rope_parameters": ROPES}, length=23),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)


@pytest.mark.parametrize("config", [SMALL, ODD], ids=["small", "odd"])
def test_weights_of_every_layer_are_those_of_the_reference(config, tmp_path):
  tested = case("Model", "weights", config)
  there = reference(tested)
  there.save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  (tokens,), kwargs = tested.ours(np.random.default_rng(1))
  want = there(**tested.theirs(np.random.default_rng(1)), output_attentions=True).attentions
  _, state = applied(model, params, tokens, **kwargs, mutable=["intermediates"])
  sown = intermediates(state["intermediates"])
  places = ["first/layer_0", *(f"stack/layer_{i}" for i in range(len(want) - 1))]
  kept = real(9)[:, None, :, None]
  for place, weights in zip(places, want, strict=True):
    assert distance(sown[f"{place}/self_attention/weights"] * kept, weights.detach().numpy() * kept) < 1e-5


def test_scanned_layers_that_take_turns_are_read(tmp_path):
  config = {**SMALL, "num_hidden_layers": 8}
  reference(case("ForMaskedLM", "", config)).save_pretrained(tmp_path)
  model, params = zoo.load(tmp_path)
  scanned = zoo.build("modernbert", **{**sizes_of(model), "scan": True})
  read = read_params(open_tensors(tmp_path), tables.of_family("modernbert"), scanned, str(tmp_path))
  assert set(read["stack"]) == {"layers", "layer_6"} and set(read["stack"]["layers"]) == {
    "layer_0",
    "layer_1",
    "layer_2",
  }
  tokens = np.arange(9)[None] + 3
  one, other = (applied(m, p, tokens)["mlm"] for m, p in ((model, params), (scanned, read)))
  np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_the_entries_of_published_files_are_understood(tmp_path):
  there = reference(case("ForMaskedLM", "", {**SMALL, "rope_parameters": None}))
  there.save_pretrained(tmp_path)
  new = json.loads((tmp_path / "config.json").read_text())
  old = {name: value for name, value in new.items() if name not in ("layer_types", "rope_parameters")}
  old |= dict(
    global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0, reference_compile=None
  )
  old |= dict(layer_norm_eps=1e-05, position_embedding_type="absolute", repad_logits_with_grad=False)
  models = []
  for entries in (new, old, {**old, "local_rope_theta": None}):
    (tmp_path / "config.json").write_text(json.dumps(entries))
    models.append(zoo.load(tmp_path)[0])
  assert models[0] == models[1]
  assert sizes_of(models[2])["local_theta"] == 160000.0
  zoo.save_hf(tmp_path / "ours", *zoo.load(tmp_path))
  written = json.loads((tmp_path / "ours" / "config.json").read_text())
  assert written["global_attn_every_n_layers"] == 3 and written["local_rope_theta"] == 160000.0


def test_a_head_starts_from_what_the_masked_one_learned(tmp_path):
  reference(case("ForMaskedLM", "", SMALL)).save_pretrained(tmp_path)
  with pytest.warns(UserWarning, match="has no classify/bias, classify/kernel: initialised at random"):
    _, params = zoo.load(tmp_path, head="classify")
  np.testing.assert_array_equal(
    params["summary"]["dense"]["kernel"], zoo.load(tmp_path)[1]["summary"]["dense"]["kernel"]
  )


def with_tokenizer(folder):
  """Letters, with the special tokens of the published one, of which the mask takes the blank before it."""
  import tokenizers

  signs = ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"]
  letters = {sign: i for i, sign in enumerate([*signs, *"abcdefghijklmnopqrstuvwxyz .?"])}
  backend = tokenizers.Tokenizer(tokenizers.models.BPE(letters, [], unk_token="[UNK]"))
  backend.add_special_tokens([tokenizers.AddedToken(sign, lstrip=sign == "[MASK]") for sign in signs])
  frame = dict(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 0), ("[SEP]", 2)])
  backend.post_processor = tokenizers.processors.TemplateProcessing(**frame)
  backend.save(str(folder / "tokenizer.json"))
  roles = {f"{sign[1:-1].lower()}_token": sign for sign in signs}
  said = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 19, **roles}
  said |= {"model_input_names": ["input_ids", "attention_mask"], "clean_up_tokenization_spaces": True}
  (folder / "tokenizer_config.json").write_text(json.dumps(said))


def test_texts_become_vectors_and_masks_words_as_in_the_reference(tmp_path):
  import transformers

  there = reference(case("ForMaskedLM", "", SMALL))
  there.save_pretrained(tmp_path)
  with_tokenizer(tmp_path)
  texts = ["a cat [MASK].", "is it a [MASK] or a"]
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
  inputs = theirs(texts, padding=True, return_tensors="pt")
  batch = zoo.load_tokenizer(tmp_path)(texts)
  np.testing.assert_array_equal(batch["tokens"], inputs["input_ids"])
  np.testing.assert_array_equal(batch["valid"], inputs["attention_mask"].bool())
  out = there(**inputs, output_hidden_states=True)
  weight = inputs["attention_mask"][:, :, None]
  mean = (out.hidden_states[-1] * weight).sum(1) / weight.sum(1)
  assert distance(zoo.embed(tmp_path, texts), mean.detach().numpy()) < 1e-5
  likeliest = out.logits[inputs["input_ids"] == 4].softmax(-1).topk(3)
  guesses = [of_mask for (of_mask,) in zoo.fill_mask(tmp_path, texts, best=3)]
  assert [[guess.token for guess in of_mask] for of_mask in guesses] == likeliest.indices.tolist()
  np.testing.assert_allclose([[guess.probability for guess in of_mask] for of_mask in guesses],
                             likeliest.values.detach().numpy(), rtol=1e-4)  # fmt: skip
  pair = zoo.load_tokenizer(tmp_path)(["a cat"], ["it is"])
  model, params = zoo.load(tmp_path)
  ours = applied(model, params, pair.pop("tokens"), **pair)["mlm"]
  want = there(**theirs("a cat", "it is", return_tensors="pt")).logits.detach().numpy()
  assert distance(ours, want) < 1e-5


@pytest.mark.parametrize(
  "entries, message",
  [
    ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ({"classifier_pooling": "max"}, "classifier_pooling is 'max'"),
    ({"hidden_activation": "mish"}, "hidden_activation is 'mish'"),
    ({"layer_types": ["chunked_attention"] * 5}, "layer_types is 'chunked_attention'"),
    ({"layer_types": None, "global_attn_every_n_layers": 0}, "global_attn_every_n_layers is 0"),
    ({"rope_parameters": {"full_attention": {"rope_type": "longrope"}}}, "rope_type is 'longrope'"),
    ({"is_decoder": True}, "is_decoder=True"),
  ],
)
def test_what_is_not_there_is_refused_by_name(entries, message, tmp_path):
  reference(case("ForMaskedLM", "", SMALL)).save_pretrained(tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(json.dumps({**config, **entries}))
  with pytest.raises(UserError, match=message):
    zoo.load(tmp_path)
