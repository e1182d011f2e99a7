"""Folders that sentence-transformers writes, against formulas; tests/convert compares with the library itself."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.hub_folder import random_params
from zoo.build import build
from zoo.data import package_data
from zoo.embed import embed, embedder
from zoo.errors import UserError
from zoo.hub.sentence_encoder import TRANSFORMER, read_sentence_encoder
from zoo.hub.sentence_modules import ACTIVATIONS
from zoo.hub.tokenizers import leading_tokens, load_tokenizer
from zoo.hub.writing import save_hf

RNG = np.random.default_rng(0)
HIDDEN = RNG.normal(size=(2, 5, 3)).astype(np.float32)
VALID = np.array([[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]], bool)  # Padding on the right, and on the left.


def write(folder, name, content):
  (folder / name).parent.mkdir(exist_ok=True)
  (folder / name).write_text(json.dumps(content))


def folder_of(tmp_path, *modules):
  """modules: (kind, its config, its tensors) after the Transformer."""
  listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}]
  for i, (kind, config, *tensors) in enumerate(modules, 1):
    path = f"{i}_{kind}"
    listed.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
    if config is not None:
      write(tmp_path, f"{path}/config.json", config)
    for named in tensors:
      save_file(named, tmp_path / path / "model.safetensors")
  write(tmp_path, "modules.json", listed)
  return tmp_path


def encode(folder, prompt_length=0):
  return np.asarray(read_sentence_encoder(folder)(HIDDEN, VALID, prompt_length))


def dense(wide, high, activation="linear.Identity", bias=True, **config):
  kernel, offset = RNG.normal(size=(high, wide)).astype(np.float32), RNG.normal(size=high).astype(np.float32)
  options = {"in_features": wide, "out_features": high, "bias": bias, **config}
  tensors = {"linear.weight": kernel} | ({"linear.bias": offset} if bias else {})
  function = {"activation_function": f"torch.nn.modules.{activation}"}
  return ("Dense", options | function, tensors), lambda x: x @ kernel.T + (offset if bias else 0)


POOLING = ("Pooling", {"embedding_dimension": 3, "pooling_mode": "mean"})
MEANS = np.stack([HIDDEN[0, :4].mean(0), HIDDEN[1, 2:].mean(0)])
UNIT = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_pools_are_joined_in_the_order_of_the_file(tmp_path):
  folder = folder_of(tmp_path, ("Pooling", {"embedding_dimension": 3, "pooling_mode": ["mean", "cls", "mean"]}))
  first = np.stack([HIDDEN[0, 0], HIDDEN[1, 2]])
  np.testing.assert_allclose(encode(folder), np.concatenate([MEANS, first, MEANS], 1), rtol=1e-5)


@pytest.mark.parametrize(
  "config, count",
  [
    ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, 2),
    ({"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": False}, 1),
    ({"pooling_mode": "mean", "pooling_mode_cls_token": True}, 1),
    ({}, 1),
  ],
  ids=str,
)
def test_old_flags_are_read_where_there_is_no_mode(config, count, tmp_path):
  vectors = encode(folder_of(tmp_path, ("Pooling", {"word_embedding_dimension": 3, **config})))
  np.testing.assert_allclose(vectors[:, -3:], MEANS, rtol=1e-5)
  assert vectors.shape == (2, 3 * count)


WITHOUT_PROMPT = {
  "cls": lambda h, first: h[0],
  "max": lambda h, first: h.max(0),
  "mean": lambda h, first: h.mean(0),
  "mean_sqrt_len_tokens": lambda h, first: h.sum(0) / np.sqrt(len(h)),
  "weightedmean": lambda h, first: np.average(h, 0, first + np.arange(len(h))),
  "lasttoken": lambda h, first: h[-1],
}


@pytest.mark.parametrize("mode", WITHOUT_PROMPT)
def test_a_prompt_may_be_left_out_of_a_pool_wherever_padding_is(mode, tmp_path):
  folder = folder_of(tmp_path, ("Pooling", {"embedding_dimension": 3, "pooling_mode": mode, "include_prompt": False}))
  assert read_sentence_encoder(folder).uses_prompt_length
  for length in (0, 2):
    want = [WITHOUT_PROMPT[mode](h, 1 + length) for h in (HIDDEN[0, length:4], HIDDEN[1, 2 + length :])]
    np.testing.assert_allclose(encode(folder, length), want, rtol=1e-5, atol=1e-6)


def test_modules_run_in_the_order_of_the_file_and_as_often(tmp_path):
  first, apply_first = dense(3, 5, module_input_name="sentence_embedding", module_output_name="sentence_embedding")
  second, apply_second = dense(5, 2, bias=False)
  norm = {"norm.weight": RNG.normal(size=5).astype(np.float32), "norm.bias": RNG.normal(size=5).astype(np.float32)}
  modules = [POOLING, ("Normalize", None), first, ("LayerNorm", {"dimension": 5}, norm), ("Dropout", {"dropout": 0.2})]
  folder = folder_of(tmp_path, *modules, second, ("Normalize", {}))
  x = apply_first(UNIT(MEANS))
  x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * norm["norm.weight"] + norm["norm.bias"]
  np.testing.assert_allclose(encode(folder), UNIT(apply_second(x)), rtol=1e-4, atol=1e-6)
  without = read_sentence_encoder(folder).without_unit()
  np.testing.assert_allclose(without(HIDDEN, VALID, 0), apply_second(x), rtol=1e-4, atol=1e-6)


def test_modules_name_what_they_read_and_write(tmp_path):
  tokens, apply_tokens = dense(3, 4, module_input_name="token_embeddings")
  other, _ = dense(4, 7, module_output_name="other")
  folder = folder_of(tmp_path, tokens, ("Pooling", {"embedding_dimension": 4, "pooling_mode": "mean"}), other)
  states = apply_tokens(HIDDEN)
  np.testing.assert_allclose(encode(folder), [states[0, :4].mean(0), states[1, 2:].mean(0)], rtol=1e-5, atol=1e-6)


def test_normalize_does_nothing_to_what_is_not_there_yet(tmp_path):
  np.testing.assert_allclose(encode(folder_of(tmp_path, ("Normalize", {}), POOLING)), MEANS, rtol=1e-5)


@pytest.mark.parametrize("high", [3, 4])
def test_a_residual_is_added_after_the_activation(high, tmp_path):
  (kind, config, tensors), apply = dense(3, high, "activation.Tanh", use_residual=True)
  if high != 3:
    tensors["residual.weight"] = RNG.normal(size=(high, 3)).astype(np.float32)
  rest = MEANS if high == 3 else MEANS @ tensors["residual.weight"].T
  folder = folder_of(tmp_path, POOLING, (kind, config, tensors))
  np.testing.assert_allclose(encode(folder), np.tanh(apply(MEANS)) + rest, rtol=1e-5, atol=1e-6)


def test_activations_are_those_of_torch():
  torch = pytest.importorskip("torch")
  x = np.linspace(-7, 7, 58, dtype=np.float32)
  for name, function in ACTIVATIONS.items():
    want = getattr(torch.nn, name)()(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(function(x), want, rtol=2e-5, atol=1e-6, err_msg=name)


CONFIG, WEIGHTS = "2_Dense/config.json", "2_Dense/model.safetensors"
MISTAKES = {
  "no bias": ({"linear.bias": None}, "a Dense of 3 -> 5 with a bias: 1 missing .linear.bias"),
  "bias of one": ({"linear.bias": (1,)}, r"1 different .linear.bias \(1,\) instead of \(5,\)"),
  "rank 3": ({"linear.weight": (5, 3, 2)}, r"linear.weight \(5, 3, 2\) instead of \(5, 3\)"),
  "extra": ({"more": (2,)}, "1 extra .more"),
  "in_features": ({"in_features": 4}, "Dense of 4 -> 5"),
  "no out_features": ({"out_features": None}, "out_features is None. It must be an int of at least 1"),
  "bias nobody wants": ({"bias": False}, "without a bias: 1 extra .linear.bias"),
  "activation": ({"activation_function": "torch.nn.modules.activation.PReLU"}, "'torch.nn.modules.activation.PReLU'"),
  "own activation": ({"activation_function": "mine.Tanh"}, "activation_function is 'mine.Tanh'"),
  "no activation": ({"activation_function": None}, "activation_function is None"),
  "reads": ({"module_input_name": "cls"}, "reads 'cls', which no module before it writes"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_dense_that_does_not_fit_is_refused_in_one_line(mistake, tmp_path):
  changes, message = MISTAKES[mistake]
  folder = folder_of(tmp_path, POOLING, dense(3, 5)[0])
  config, tensors = json.loads((folder / CONFIG).read_text()), load_file(folder / WEIGHTS)
  for name, value in changes.items():
    if name in config:
      config[name] = value
    elif name.startswith("module"):
      config[name] = value
    elif value is None:
      del tensors[name]
    else:
      tensors[name] = np.ones(value, np.float32)
  write(folder, CONFIG, config)
  save_file(tensors, folder / WEIGHTS)
  with pytest.raises(UserError, match=message):
    encode(folder)


def test_entries_of_a_dense_that_the_library_does_not_read_are_passed_over_with_a_warning(tmp_path):
  module, apply = dense(3, 5, rank=7)
  with pytest.warns(UserWarning, match="rank=7: ignored"):
    np.testing.assert_allclose(encode(folder_of(tmp_path, POOLING, module)), apply(MEANS), rtol=1e-5, atol=1e-6)


def test_widths_that_do_not_meet_are_refused_in_one_line(tmp_path):
  both = ("Pooling", {"embedding_dimension": 3, "pooling_mode": ["mean", "cls"]})
  with pytest.raises(UserError, match=r"2_Dense: in_features is 3, but its input sentence_embedding has width 6\."):
    encode(folder_of(tmp_path, both, dense(3, 5)[0]))


@pytest.mark.parametrize(
  "modules, message",
  [
    ([], "lists no module that writes sentence_embedding. Add a Pooling"),
    ([dense(3, 5)[0], POOLING], "1_Dense reads 'sentence_embedding', which no module before it writes"),
    ([("Transformer", {}), POOLING], "lists a second Transformer"),
    ([("LSTM", {})], "the zoo has no module 'LSTM'. It has: Transformer, Pooling, Dense"),
    ([("Poolin", {})], "Did you mean 'Pooling'"),
    ([("Pooling", {"embedding_dimension": 3, "pooling_mode": []})], "enables no pooling mode"),
    ([("Pooling", {"embedding_dimension": 3, "pooling_mode": "mean_sqrt_len"})], "pooling_mode is 'mean_sqrt_len'"),
  ],
)
def test_modules_that_the_zoo_cannot_run_are_refused_by_name(modules, message, tmp_path):
  with pytest.raises(UserError, match=message):
    encode(folder_of(tmp_path, *modules))


SAYS = {
  "length": ({"max_seq_length": 7}, {"max_length": 7}),
  "null": ({"max_seq_length": None, "do_lower_case": True}, {"lower": True}),
  "tokenizer": ({"max_seq_length": 7, "tokenizer_args": {"model_max_length": 5}}, {"max_length": 5}),
}


@pytest.mark.parametrize("name", TRANSFORMER)
def test_the_transformer_is_told_under_any_of_its_old_names(name, tmp_path):
  folder = folder_of(tmp_path, POOLING)
  for content, fields in SAYS.values():
    write(folder, name, content)
    encoder = read_sentence_encoder(folder)
    assert {field: getattr(encoder, field) for field in fields} == fields
  write(folder, "sentence_bert_config.json", {"max_seq_length": 3, "do_lower_case": False})
  assert read_sentence_encoder(folder).max_length == 3


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length is 0. It must be at least 1"),
    ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
    ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "modality_config is"),
    ("sentence_bert_config.json", {"model_args": {"subfolder": "x"}}, "model_args has 1 unknown option"),
    ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim is 0"),
    ("config_sentence_transformers.json", {"prompts": {"q": 3}}, "the prompt 'q' is 3"),
    ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}, "model_type is 'CrossEncoder'"),
  ],
)
def test_what_the_encoder_is_told_and_cannot_do_is_refused_by_name(name, content, message, tmp_path):
  write(folder_of(tmp_path, POOLING), name, content)
  with pytest.raises(UserError, match=message):
    read_sentence_encoder(tmp_path)


@pytest.fixture(scope="module")
def cased(tmp_path_factory):
  """An encoder with a tokenizer that keeps case."""
  folder = folder_of(tmp_path_factory.mktemp("cased"), POOLING)
  sizes = dict(vocab_size=30522, max_length=19, dim=6, depth=1, num_heads=3, head=None)
  model = build("bert", **sizes)
  save_hf(folder, model, random_params(model))
  (folder / "vocab.txt").write_text("\n".join(package_data.lines("vocab/bert.txt.xz")), encoding="utf-8")
  write(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": False})
  return folder


def test_the_prompt_becomes_lower_case_with_the_text_and_special_tokens_stay(cased):
  plain = embed(cased, ["find this [MASK] now"])
  write(cased, "sentence_bert_config.json", {"do_lower_case": True})
  np.testing.assert_allclose(embed(cased, ["THIS [MASK] Now"], prompt="FIND "), plain, rtol=1e-5, atol=1e-6)
  tokenizer = load_tokenizer(cased)
  assert tokenizer.encode("FIND") != tokenizer.encode("find")  # Tokenizers opened before are unchanged.
  (cased / "sentence_bert_config.json").unlink()


def test_vectors_are_cut_to_their_first_numbers_and_then_made_of_length_1(cased):
  whole = embed(cased, ["a text"])
  write(cased, "config_sentence_transformers.json", {"truncate_dim": 4})
  make = embedder(cased)
  np.testing.assert_allclose(embed(make, ["a text"]), whole[:, :4], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(embed(make, "a text", truncate_dim=2, unit=True), UNIT(whole[:, :2]), rtol=1e-5)
  assert embed(make, "a text", truncate_dim=99).shape == (1, 6)
  (cased / "config_sentence_transformers.json").unlink()


def test_the_length_that_the_folder_says_goes_before_the_tokenizers(cased):
  text = "a b c d e f g h i j k l"
  whole = embed(cased, [text])
  config = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": 5}
  write(cased, "tokenizer_config.json", config)
  assert not np.allclose(embed(cased, [text]), whole)
  write(cased, "sentence_bert_config.json", {"max_seq_length": 14})
  np.testing.assert_allclose(embed(cased, [text]), whole, rtol=1e-5, atol=1e-6)
  assert leading_tokens(load_tokenizer(cased), "a b", 9) == 3  # [CLS] a b
