"""Fine-tuning by one command, from a folder of torch transformers to a folder that it loads."""

import json
import pathlib

import numpy as np
import pytest
from tokenizers import processors

import train
import zoo
from tests.data.toys import png, write_csv, write_jsonl
from tests.evaluate import hub
from zoo import sharding
from zoo.config.loading import load
from zoo.finetune.filling import with_task
from zoo.preprocessing import as_float
from zoo.train.experiment import experiment
from zoo.train.initial import first_state

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune.py"
BERT = dict(
  vocab_size=len(hub.SPECIAL) + len(hub.WORDS),
  hidden_size=12,
  num_hidden_layers=2,
  num_attention_heads=3,
  intermediate_size=14,
  max_position_embeddings=24,
  hidden_dropout_prob=0.0,
  attention_probs_dropout_prob=0.0,
)


def reference(folder, name, config, **entries):
  """A tiny random model of torch transformers, saved by it."""
  torch.manual_seed(0)
  config = getattr(transformers, config)(**entries)
  model = getattr(transformers, name)(config).eval()
  model.save_pretrained(folder)
  return folder


def bert(folder, name="BertForMaskedLM", **entries):
  """The same with a tokenizer."""
  reference(folder, name, "BertConfig", **{**BERT, **entries})
  hub.vocabulary(folder)
  return folder


def flags(folder, task, source, workdir, *more):
  return [
    f"--config={CONFIG}",
    f"--config.init={folder}",
    f"--config.task={task}",
    f"--config.data.source={source}",
    f"--config.workdir={workdir}",
    "--config.steps=3",
    "--config.batch_size=8",
    "--config.log.every=1",
    "--config.optimizer.warmup_steps=0",
    "--config.optimizer.learning_rate=1e-3",
    "--config.eval.every=0",
    "--config.verify=never",
    *more,
  ]


def tuned(arguments, name, feed, tmp_path):
  """Trains; asserts that the first loss is torch's on the same batch, and that torch reads what was learned.

  Args:
    arguments: of train.py.
    name: torch's class.
    feed: batch of ours -> keywords of torch's forward, labels among them.

  Returns:
    torch's model of the trained folder, the run, the config that was filled in, and what was said.
  """
  said = []
  config = with_task(load(arguments)[0], said.append)
  built = experiment(config, sharding.make_mesh(config.mesh))
  state = first_state(config, built)
  batch = next(iter(built.batches.iterate(0)))
  zoo.save_hf(tmp_path / "begun", built.model, state["params"])
  model = getattr(transformers, name).from_pretrained(tmp_path / "begun").eval()
  keywords = {key: torch.from_numpy(np.array(x)) for key, x in feed(batch, built.model).items()}
  with torch.no_grad():
    loss = model(**keywords).loss.item()
  assert train.main(arguments) == 0
  run = pathlib.Path(config.workdir)
  logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
  assert logged[0]["loss"] == pytest.approx(loss, rel=2e-5)
  model, params = zoo.load(run)
  zoo.save_hf(tmp_path / "out", model, params)
  theirs = getattr(transformers, name).from_pretrained(tmp_path / "out").eval()
  shifted = []
  if "target_tokens" in batch:
    start = np.full((len(batch["tokens"]), 1), model.start_token)
    shifted = [np.concatenate([start, batch["target_tokens"][:, :-1]], axis=1)]
  counts = batch.get("target_valid", ...)  # After the end of a target, the two pad differently.
  batch = {entry: x for entry, x in batch.items() if entry in ("tokens", "valid", "segments", "image")}
  tokens = as_float(batch.pop("image"), model) if "image" in batch else batch.pop("tokens")
  ours = model.apply({"params": params}, tokens, *shifted, **batch)
  with torch.no_grad():
    outputs = theirs(**keywords)
  ours = ours if isinstance(ours, dict) else {"logits": ours}
  names = {"logits": "logits", "start": "start_logits", "end": "end_logits"}
  for key, other in names.items():
    if key in ours:
      np.testing.assert_allclose(ours[key][counts], getattr(outputs, other).numpy()[counts], atol=2e-5)
  return theirs, run, config, said


def of_texts(batch, model):
  names = {"tokens": "input_ids", "valid": "attention_mask", "segments": "token_type_ids", "label": "labels"}
  entries = {theirs: batch[ours].astype(np.int64) for ours, theirs in names.items() if ours in batch}
  if "score" in batch:
    entries["labels"] = batch["score"]
  return entries


def reviews(path, names=("bad", "fine", "good"), rows=40):
  rng = hub.generator()
  write_csv(path, [{"review": hub.sentence(rng), "verdict": names[i % len(names)]} for i in range(rows)])
  return f"csv:{path}"


def test_classification_of_texts(tmp_path):
  folder = bert(tmp_path / "bert")
  source = reviews(tmp_path / "my.csv")
  arguments = flags(folder, "classification", source, tmp_path / "run", "--config.data.label_field=verdict")
  theirs, run, config, said = tuned(arguments, "BertForSequenceClassification", of_texts, tmp_path)
  assert theirs.config.id2label == {0: "bad", 1: "fine", 2: "good"}
  assert config.data.max_length == 24 and config.data.split == "train[:90%]"
  assert config.checkpoint.best == "eval/classification/accuracy"
  assert "head: new, 3 classes: bad, fine, good." in said
  assert f"columns: text = review, label = verdict, of {source}[train[:90%]]." in said
  best, _ = zoo.load(run, best=True)
  assert best.preprocessing["classes"] == ["bad", "fine", "good"]
  metrics = zoo.evaluate_model(run, task="classification", data=source, split="train[90%:]", columns="label=verdict")
  assert json.loads((run / "config.json").read_text())["data"]["classes"] == ["bad", "fine", "good"]
  assert 0 <= metrics["accuracy"] <= 1


TOWER = dict(
  image_size=6, patch_size=3, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=14
)
TEXTS = dict(hidden_size=10, num_hidden_layers=1, num_attention_heads=2, intermediate_size=14, vocab_size=23)
CLIP = dict(vision_config=TOWER, text_config=TEXTS, projection_dim=7)
IMAGES = {
  "vit": ("ViTForImageClassification", "ViTForImageClassification", "ViTConfig", TOWER | {"num_labels": 5}),
  "clip": ("CLIPForImageClassification", "CLIPModel", "CLIPConfig", CLIP),
}


@pytest.mark.parametrize("family", IMAGES)
def test_classification_of_images(family, tmp_path):
  theirs_name, begins, kind, entries = IMAGES[family]
  folder = reference(tmp_path / family, begins, kind, **entries)
  pixels = {
    "image_processor_type": f"{kind.removesuffix('Config')}ImageProcessor",
    "size": {"height": 6, "width": 6},
    "resample": 2,
  }
  pixels |= {"crop_size": pixels["size"]} if family == "clip" else {}
  pixels |= {"do_resize": True, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
  (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
  for name in ("cat", "dog"):
    for i in range(10):
      file = tmp_path / "images" / name / f"{i}.png"
      file.parent.mkdir(parents=True, exist_ok=True)
      file.write_bytes(png(10 * i))

  def feed(batch, model):
    image = np.asarray(as_float(batch["image"], model))
    return {"pixel_values": image.transpose(0, 3, 1, 2), "labels": batch["label"].astype(np.int64)}

  arguments = flags(folder, "classification", f"images:{tmp_path / 'images'}", tmp_path / "run")
  theirs, run, config, said = tuned(arguments, theirs_name, feed, tmp_path)
  assert theirs.config.id2label == {0: "cat", 1: "dog"}
  had = "; that of" if family == "vit" else "."
  assert any(line.startswith(f"head: new, 2 classes: cat, dog{had}") for line in said)


def test_regression(tmp_path):
  folder = bert(tmp_path / "bert", "BertForSequenceClassification", num_labels=3)
  rng = hub.generator()
  columns = {"sentence1": [hub.sentence(rng, 7) for _ in range(40)], "sentence2": [hub.sentence(rng, 7)] * 40}
  source = hub.table(tmp_path / "x.jsonl", columns | {"score": rng.normal(size=40).round(2).tolist()})
  arguments = flags(folder, "regression", source, tmp_path / "run")
  theirs, _, config, said = tuned(arguments, "BertForSequenceClassification", of_texts, tmp_path)
  assert theirs.config.num_labels == 1
  assert (config.checkpoint.best, config.checkpoint.best_mode) == ("eval/regression/mse", "min")
  assert any(line.startswith("head: new; that of") for line in said)


def test_token_classification(tmp_path):
  folder = bert(tmp_path / "bert", "BertModel")
  rng, tags = hub.generator(), ["O", "B-LOC", "I-LOC"]
  words = [hub.sentence(rng).split() for _ in range(40)]
  labels = [[tags[(i + j) % 3] for j in range(len(some))] for i, some in enumerate(words)]
  source = hub.table(tmp_path / "x.jsonl", {"tokens": words, "ner_tags": labels})

  def feed(batch, model):
    entries = of_texts(batch, model)
    return entries | {"labels": np.where(batch["label"] < 0, -100, batch["label"]).astype(np.int64)}

  arguments = flags(folder, "token_classification", source, tmp_path / "run")
  theirs, _, config, _ = tuned(arguments, "BertForTokenClassification", feed, tmp_path)
  assert theirs.config.id2label == {0: "B-LOC", 1: "I-LOC", 2: "O"}
  assert config.checkpoint.best == "eval/token_classification/f1"


def test_question_answering(tmp_path):
  folder = bert(tmp_path / "bert")
  rng, rows = hub.generator(), []
  for number in range(40):
    context = hub.sentence(rng)
    answer = context.split()[number % len(context.split())]
    answers = {"text": [answer], "answer_start": [context.index(answer)]} if number % 5 else {"text": []}
    rows.append({"question": "where is Paris", "context": context, "answers": answers})
  write_jsonl(tmp_path / "x.jsonl", rows)

  def feed(batch, model):
    ends = {f"{name}_positions": batch[name].astype(np.int64) for name in ("start", "end")}
    return of_texts(batch, model) | ends

  arguments = flags(folder, "question_answering", f"jsonl:{tmp_path}/x.jsonl", tmp_path / "run")
  _, _, config, _ = tuned(arguments, "BertForQuestionAnswering", feed, tmp_path)
  assert config.checkpoint.best == "eval/question_answering/f1"


def test_multiple_choice(tmp_path):
  folder = bert(tmp_path / "bert")
  rng = hub.generator()
  columns = {"question": [hub.sentence(rng, 5) for _ in range(40)]}
  columns |= {"choices": [[hub.sentence(rng, 5) for _ in range(3)] for _ in range(40)], "label": [0, 1, 2, 1] * 10}
  source = hub.table(tmp_path / "x.jsonl", columns)
  arguments = flags(folder, "multiple_choice", source, tmp_path / "run")
  tuned(arguments, "BertForMultipleChoice", of_texts, tmp_path)


def test_a_language_model_goes_on_with_texts_of_its_own(tmp_path):
  entries = dict(vocab_size=257, n_positions=24, n_embd=12, n_layer=2, n_head=3)
  entries |= dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=256, eos_token_id=256)
  folder = reference(tmp_path / "gpt2", "GPT2LMHeadModel", "GPT2Config", **entries)
  hub.byte_tokenizer(["<|endoftext|>"]).save(str(folder / "tokenizer.json"))
  hub.tokenizer_config(folder, eos_token="<|endoftext|>")
  rng = hub.generator()
  source = hub.table(tmp_path / "x.jsonl", {"text": [hub.sentence(rng) for _ in range(40)]})
  feed = lambda batch, model: {name: batch["tokens"].astype(np.int64) for name in ("input_ids", "labels")}
  arguments = flags(folder, "causal_lm", source, tmp_path / "run", "--config.data.max_length=23")
  _, _, config, _ = tuned(arguments, "GPT2LMHeadModel", feed, tmp_path)
  assert config.checkpoint.best == "eval/causal_lm/loss"


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_an_encoder_decoder_learns_pairs(family, tmp_path):
  special = {"t5": ["<pad>", "</s>"], "bart": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]}[family]
  backend = hub.byte_tokenizer(special)
  ids = {sign: backend.token_to_id(sign) for sign in special}
  template = {"t5": "$A </s>", "bart": "<s> $A </s>"}[family]
  backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(ids.items()))
  entries = dict(vocab_size=256 + len(special), d_model=12, pad_token_id=ids["<pad>"], eos_token_id=ids["</s>"])
  if family == "t5":
    entries |= dict(d_kv=4, d_ff=14, num_layers=2, num_heads=3, dropout_rate=0.0)
    entries |= dict(decoder_start_token_id=ids["<pad>"])
    entries |= dict(task_specific_params={"summarization": {"prefix": "summarize: "}})
  else:
    layers = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 2), ("ffn_dim", 14))}
    entries |= layers | dict(encoder_attention_heads=3, decoder_attention_heads=3, max_position_embeddings=64)
    entries |= dict(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, bos_token_id=ids["<s>"])
    entries |= dict(decoder_start_token_id=ids["</s>"], forced_eos_token_id=ids["</s>"])
  classes = {"t5": ("T5ForConditionalGeneration", "T5Config"), "bart": ("BartForConditionalGeneration", "BartConfig")}
  folder = reference(tmp_path / family, *classes[family], **entries)
  backend.save(str(folder / "tokenizer.json"))
  hub.tokenizer_config(folder, pad_token="<pad>", eos_token="</s>")
  rng = hub.generator()
  texts = [hub.sentence(rng, 5) for _ in range(40)]
  source = hub.table(tmp_path / "x.jsonl", {"document": texts, "summary": [text.split()[0] for text in texts]})

  def feed(batch, model):
    labels = np.where(batch["target_valid"], batch["target_tokens"], -100).astype(np.int64)
    return of_texts(batch, model) | {"labels": labels}

  arguments = flags(folder, "summarisation", source, tmp_path / "run")
  _, _, config, said = tuned(arguments, classes[family][0], feed, tmp_path)
  assert config.checkpoint.best == "eval/summarisation/rougeL"
  assert config.data.target_length == 8 and config.data.max_length % 8 == 0
  assert any(line.startswith("prefix: 'summarize: '") for line in said) == (family == "t5")
