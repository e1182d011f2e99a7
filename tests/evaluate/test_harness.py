"""lm-evaluation-harness on the zoo's models, against its own model of torch transformers on the same folders."""

import functools
import importlib
import json
import sys

import jax
import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

import zoo
from tests.evaluate import hub
from tests.evaluate.harness_tasks import TASKS, sentence, tasks_in
from tests.hub_folder import random_params
from zoo import sharding
from zoo.errors import UserError
from zoo.evaluate import harness
from zoo.evaluate.harness_model import HarnessModel
from zoo.evaluate.harness_tokenizer import HarnessTokenizer, power_above


@pytest.fixture
def lm_eval(monkeypatch):
  """Imports the package without its warnings."""
  package = pytest.importorskip("lm_eval", reason="pip install -e .[harness] accelerate: lm_eval is not installed")
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  for module in ("evaluator", "tasks"):
    importlib.import_module(f"lm_eval.{module}")
  return package


pytestmark = pytest.mark.filterwarnings("default")


def tokenizer_of(folder, family):
  """Byte pairs with nothing around a text, pieces behind a beginning, or pieces before an end; -> how many tokens."""
  special = ["<|endoftext|>"] if family == "gpt2" else ["<s>", "</s>", "<pad>", "<unk>"]
  backend = tokenizers.Tokenizer(models.BPE(unk_token=None if family == "gpt2" else "<unk>"))
  if family == "gpt2":
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
  else:
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
  texts = [sentence(np.random.default_rng(seed)) for seed in range(97)] + ["A B"]
  options = {"vocab_size": 331, "special_tokens": special, "show_progress": False}
  backend.train_from_iterator(texts, trainers.BpeTrainer(**options))
  frame = {"gpt2": None, "llama": "<s> $A", "t5": "$A </s>"}[family]
  if frame is not None:
    places = [(sign, backend.token_to_id(sign)) for sign in special]
    backend.post_processor = processors.TemplateProcessing(single=frame, special_tokens=places)
  backend.save(str(folder / "tokenizer.json"))
  signs = {"eos_token": "</s>", "pad_token": "<pad>"} | ({"bos_token": "<s>"} if family == "llama" else {})
  signs = {"eos_token": special[0], "bos_token": special[0]} if family == "gpt2" else signs
  signs |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 24}
  (folder / "tokenizer_config.json").write_text(json.dumps(signs))
  return backend.get_vocab_size()


def folder_of(path, family):
  """A tiny model of torch, all parameters random, with a tokenizer."""
  torch = pytest.importorskip("torch", reason="torch is not installed")
  transformers = pytest.importorskip("transformers", reason="transformers is not installed")
  path.mkdir()
  size = tokenizer_of(path, family)
  ids = {"vocab_size": size, "bos_token_id": 0, "eos_token_id": 0 if family == "gpt2" else 1, "pad_token_id": None}
  if family == "gpt2":
    config = transformers.GPT2Config(n_positions=24, n_embd=12, n_layer=2, n_head=3, **ids)
  elif family == "llama":
    sizes = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.LlamaConfig(max_position_embeddings=24, **sizes, **ids)
  else:
    sizes = {"d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 2, "num_heads": 3, "decoder_start_token_id": 2}
    config = transformers.T5Config(**sizes, **ids | {"pad_token_id": 2})
  torch.manual_seed(5)
  names = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM", "t5": "T5ForConditionalGeneration"}
  model = getattr(transformers, names[family])(config)
  for weight in model.parameters():
    torch.nn.init.normal_(weight, std=1.0)
  model.save_pretrained(path)
  return path


def evaluate(lm_eval, model, folder):
  """The results of `simple_evaluate` on the tasks of a folder."""
  manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
  options = {"task_manager": manager, "bootstrap_iters": 0}
  return lm_eval.evaluator.simple_evaluate(model=model, tasks=list(TASKS), **options)


def check_same(ours, theirs, exact):
  """Log-likelihoods to 1e-5 of themselves, texts and all that is counted exactly.

  An answer of lm_eval's encoder-decoders may be longer by its prompt: without `exact` it has to begin as ours does.
  """
  for task in TASKS:
    for one, other in zip(ours["samples"][task], theirs["samples"][task], strict=True):
      assert one["doc"] == other["doc"] and one["arguments"] == other["arguments"]
      if task == "answers":
        texts = one["resps"][0][0], other["resps"][0][0]
        assert texts[0] == texts[1] or (not exact and texts[1].startswith(texts[0]))
      else:
        values = [[value for response in sample["resps"] for value in np.ravel(response[0])] for sample in (one, other)]
        np.testing.assert_allclose(np.array(values[0], float), np.array(values[1], float), rtol=1e-5)
    scores = [
      {name: value for name, value in results["results"][task].items() if isinstance(value, float)}
      for results in (ours, theirs)
    ]
    assert scores[0] and scores[0] == pytest.approx(scores[1], rel=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5"])
def test_log_likelihoods_and_texts_are_those_of_the_reference(family, lm_eval, tmp_path):
  pytest.importorskip("accelerate", reason="accelerate is not installed")
  folder, tasks = folder_of(tmp_path / "m", family), tasks_in(tmp_path / "tasks")
  from lm_eval.api.instance import Instance
  from lm_eval.models.huggingface import HFLM

  reference, model = HFLM(str(folder), device="cpu", dtype="float32", batch_size=1), harness.adapter(folder)
  theirs, ours = evaluate(lm_eval, reference, tasks), evaluate(lm_eval, model, tasks)
  check_same(ours, theirs, exact=family != "t5")
  # A greedy answer is the likeliest one; with another end it is not.
  rng = np.random.default_rng(1)
  asked = [(sentence(rng, 4), {"until": [], "max_gen_toks": 3}) for _ in range(7)]
  texts = model.generate_until([Instance("generate_until", {}, pair, 0) for pair in asked], disable_tqdm=True)
  assert len(set(texts)) > 2
  pairs = [
    (context, ("" if family == "gpt2" else " ") + text + end)
    for (context, _), text in zip(asked, texts)
    for end in ("", " we")
  ]
  (one, other) = (
    lm.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True)
    for lm in (model, reference)
  )
  assert [greedy for _, greedy in one] == [greedy for _, greedy in other]
  assert {greedy for _, greedy in one} == {True, False}


SIZES = {"max_length": 13, "dim": 12, "depth": 1, "num_heads": 2}


@functools.cache
def gpt():
  model = zoo.build("gpt", vocab_size=260, **SIZES)
  return model, random_params(model)


def plain(model, params, **options):
  """The adapter's methods where lm_eval is not installed: on tokens."""
  tokenizer = HarnessTokenizer(zoo.load_tokenizer("bytes"), model.vocab_size, None, None)
  options = {"batch_size": 4, "max_length": 13, "max_gen_toks": 5, "seed": 0, "entries": ({}, {}, ""), **options}
  return HarnessModel(model, params, tokenizer, **options)


def requests_of(rng, count=11):
  """Contexts and continuations, of which several share a row and several are cut."""
  draw = lambda least, most: rng.integers(0, 256, rng.integers(least, most)).tolist()
  pairs = [(draw(1, 23), draw(1, 6)) for _ in range(count)]
  return [(None, context, end) for context, end in pairs + [(pairs[0][0], [*pairs[0][1][:-1], x]) for x in (1, 2, 1)]]


def test_a_log_likelihood_is_the_sum_over_the_continuation_of_the_last_tokens_that_fit():
  model, params = gpt()
  requests = requests_of(np.random.default_rng(0))
  with pytest.warns(UserWarning, match="Contexts lose their beginning where they exceed the 13 tokens"):
    results = plain(model, params)._loglikelihood_tokens(requests, disable_tqdm=True)
  apply = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens))
  for (_, context, end), (log_likelihood, greedy) in zip(requests, results, strict=True):
    tokens = np.array([(context + end)[-14:]])
    logits = apply(params, np.pad(tokens[:, :-1], ((0, 0), (0, 14 - tokens.shape[1]))))
    logits = logits[0, : tokens.shape[1] - 1][-len(end) :]
    scores = jax.nn.log_softmax(logits)[np.arange(len(end)), np.array(end)]
    assert log_likelihood == pytest.approx(float(scores.sum()), rel=1e-5)
    assert greedy == bool((logits.argmax(-1) == np.array(end)).all())


def test_a_mesh_gives_the_results_of_one_device():
  model, params = gpt()
  mesh = sharding.make_mesh({"data": 4, "model": 2})
  sharded = jax.device_put(params, sharding.shardings(params, "fsdp", mesh))
  requests = requests_of(np.random.default_rng(0))
  with pytest.warns(UserWarning, match="lose their beginning"):
    one, many = (plain(model, p)._loglikelihood_tokens(requests, disable_tqdm=True) for p in (params, sharded))
  np.testing.assert_allclose(np.array(many), np.array(one), rtol=1e-5)


@pytest.mark.parametrize(
  "row, error",
  [
    (([], [1]), "A context of 0 tokens"),
    (([1], []), "a continuation of 0"),
    (([1], [2] * 14), "at least 1 and 1 to 13 are needed"),
  ],
)
def test_what_has_no_log_likelihood_is_refused(row, error):
  with pytest.raises(UserError, match=error):
    plain(*gpt())._loglikelihood_tokens([(None, *row)], disable_tqdm=True)


def test_special_tokens_around_a_text_are_left_out_where_they_are_not_asked_for(tmp_path):
  tokenizer_of(tmp_path, "llama")
  tokenizer = HarnessTokenizer(zoo.load_tokenizer(tmp_path), 331, None, None)
  text = "the fox is here"
  ids = tokenizer.encode(text)
  assert ids[0] == tokenizer.prefix == 0 and tokenizer.encode(text, False) == ids[1:]
  assert tokenizer.encode(f"<s> {text}") == tokenizer.encode(f"<s> {text}", False)  # It has its beginning.
  assert tokenizer.encode("a</s>", False)[-1] == tokenizer.end == 1 and tokenizer.end_sign == "</s>"
  assert HarnessTokenizer(zoo.load_tokenizer(tmp_path), 331, False, 3).encode(text) == ids[1:]
  with pytest.raises(UserError, match="follow the token 331, not a token of the model"):
    HarnessTokenizer(zoo.load_tokenizer(tmp_path), 331, None, 331)


def test_stops_are_all_tokens_that_hold_one_and_each_as_it_is_encoded(tmp_path):
  tokenizer_of(tmp_path, "llama")
  tokenizer = HarnessTokenizer(zoo.load_tokenizer(tmp_path), 331, None, None)
  stops = tokenizer.stops(("fox", "is"))
  names = {name for name, number in tokenizer.tokenizer.backend.get_vocab().items() if [number] in stops}
  assert {"▁fox", "▁is"} <= names and all("fox" in name or "is" in name for name in names)
  assert len(stops) == power_above(len({tuple(stop) for stop in stops}), 2)
  assert tokenizer.stops(()) == []


def test_the_command_prints_a_table_and_writes_beside_the_weights_nothing(lm_eval, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  folder = hub.bytes_folder(tmp_path / "m", "gpt", max_length=60)
  hub.tokenizer_config(folder, eos_token="<|endoftext|>")
  before = sorted(folder.iterdir())
  tasks = tasks_in(tmp_path / "tasks")
  manager = lm_eval.tasks.TaskManager(include_path=str(tasks), include_defaults=False)
  monkeypatch.setattr(lm_eval.tasks, "TaskManager", lambda **_: manager)  # Reading lm_eval's own tasks takes a while.
  options = ["--limit=2", "--batch_size=4", "--log_samples", '--gen_kwargs={"max_gen_toks": 3}']
  assert harness.main([f"--model={folder}", "--tasks=choices,answers", "--include_path=tasks", *options]) == 0
  out, written = capsys.readouterr().out, tmp_path / "runs" / "evaluations" / "m" / "harness"
  assert "|choices|" in out and f"Written to {written.relative_to(tmp_path)}." in out
  results = json.loads((written / "harness.json").read_text())
  assert 0 <= results["results"]["choices"]["acc,none"] <= 1 and results["config"]["limit"] == 2
  assert len((written / "samples_answers.jsonl").read_text().splitlines()) == 2
  assert sorted(folder.iterdir()) == before
  for option, error in [
    ("--tasks=choice", "no task 'choice'. Did you mean 'choices'?"),
    ('--gen_kwargs={"top_q": 3}', "generation_kwargs has top_q, which the zoo does not have. Did you mean 'top_p'?"),
    ('--gen_kwargs={"max_gen_toks": 60}', "max_gen_toks is 60, and the model reads 60 tokens"),
    ("--include_path=nowhere", "--include_path is nowhere, which is no folder"),
    ("--max_length=61", "max_length is 61, the model takes 60 tokens"),
  ]:
    words = [] if option.startswith("--tasks") else ["--tasks=answers"]
    with pytest.raises(SystemExit):
      harness.main([f"--model={folder}", option, *words])
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("name", ["model", "tasks"])
def test_a_command_without_a_needed_flag_says_which(name, capsys):
  words = [f"--{other}=x" for other in ("model", "tasks") if other != name]
  with pytest.raises(SystemExit):
    harness.main(words)
  assert f"Error: --{name} is missing" in capsys.readouterr().err


def test_a_model_that_writes_no_texts_is_refused(lm_eval):
  model = zoo.build("bert", vocab_size=7, **SIZES, head="mlm")
  with pytest.raises(UserError, match="needs a model that continues or answers texts. This is a bert that predicts"):
    harness.adapter((model, {}), tokenizer="bert")


def test_without_lm_eval_one_line_says_how_to_install_it(monkeypatch, capsys):
  for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
    monkeypatch.delitem(sys.modules, name)
  monkeypatch.setitem(sys.modules, "lm_eval", None)
  with pytest.raises(SystemExit):
    harness.main(["--model=m", "--tasks=x"])
  assert capsys.readouterr().err.count("\n") == 1
  with pytest.raises(UserError, match="Install it with: pip install lm_eval"):
    harness.adapter(gpt(), tokenizer="bytes")
