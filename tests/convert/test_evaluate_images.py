"""Metrics of `zoo.evaluate_model` for image models, against torch transformers on the same folder and files."""

import json

import numpy as np
import pytest
from PIL import Image

import zoo
from tests.convert.test_embed import PICTURE, TOWER, reference, unit, vectors

NAMES = ["blue_disc", "red disc", "tree"]
TEMPLATES = ["a photo of a {}.", "{}, drawn"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """images: with classes as folders, and with captions; and the pictures, of each its class."""
  folder = tmp_path_factory.mktemp("pictures")
  rng = np.random.default_rng(0)
  rows = []
  for number in range(17):
    name = NAMES[number % 3]
    pixels = rng.integers(0, 256, (30 + number, 41, 3)).astype(np.uint8)
    for place in (folder / "classes" / name, folder / "captions"):
      place.mkdir(parents=True, exist_ok=True)
      Image.fromarray(pixels).save(place / f"{number}.png")
    rows.append({"file_name": f"{number}.png", "text": f"the {name} of number {number}"})
  (folder / "captions" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder


def opened(source):
  records = zoo.load_data(source, "train")
  return [records[index] for index in range(len(records))]


def pixels(processor, records):
  import io

  import torch

  images = [Image.open(io.BytesIO(record["image"])).convert("RGB") for record in records]
  return torch.from_numpy(processor(images, return_tensors="np")["pixel_values"])


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  """The folder of a CLIP, the reference and its processor."""
  import transformers

  folder = tmp_path_factory.mktemp("clip")
  text = dict(**TOWER, vocab_size=49408, max_position_embeddings=77, eos_token_id=49407)
  there = reference(
    transformers.CLIPModel, transformers.CLIPConfig(text_config=text, vision_config=PICTURE, projection_dim=10)
  )
  there.save_pretrained(folder)
  processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 21}, crop_size={"height": 21, "width": 21})
  processor.save_pretrained(folder)
  return folder, there, processor


def texts_of(there, texts):
  import torch

  batch = zoo.load_tokenizer("clip")(texts, length=77)
  tokens, valid = (torch.from_numpy(batch[name].astype(np.int64)) for name in ("tokens", "valid"))
  return unit(vectors(there.get_text_features(tokens, attention_mask=valid)))


def test_zero_shot_is_that_of_the_reference(clip, pictures):
  folder, there, processor = clip
  source = f"images:{pictures / 'classes'}"
  metrics = zoo.evaluate_model(folder, task="zero_shot", data=source, templates=TEMPLATES, batch_size=5)

  records = opened(source)
  images = unit(vectors(there.get_image_features(pixels(processor, records))))
  names = [name.replace("_", " ") for name in NAMES]
  of_texts = texts_of(there, [template.replace("{}", name) for name in names for template in TEMPLATES])
  classes = unit(of_texts.reshape(3, 2, -1).mean(1))
  assert metrics["top1"] == np.mean((images @ classes.T).argmax(1) == [record["label"] for record in records])
  assert metrics["chance/top1"] == pytest.approx(1 / 3)


def test_retrieval_is_that_of_the_reference(clip, pictures, tmp_path):
  folder, there, processor = clip
  source = f"images:{pictures / 'captions'}"
  metrics = zoo.evaluate_model(folder, task="retrieval", data=source, batch_size=5, folder=tmp_path)

  records = opened(source)
  images = unit(vectors(there.get_image_features(pixels(processor, records))))
  scores = images @ texts_of(there, [record["text"] for record in records]).T
  for way, table in (("image_to_text", scores), ("text_to_image", scores.T)):
    ranks = (table >= np.diag(table)[:, None]).sum(1)
    for k in (1, 5, 10):
      assert metrics[f"{way}_r{k}"] == np.mean(ranks <= k)
  assert {"evaluation.json", "evaluation.txt", "retrieval.png"} <= {path.name for path in tmp_path.iterdir()}


def test_image_classification_is_that_of_the_reference_whatever_the_order_of_classes(pictures, tmp_path):
  import transformers

  names = ["Tree", "blue disc", "RED DISC"]
  config = transformers.ViTConfig(
    **PICTURE, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
  )
  there = reference(transformers.ViTForImageClassification, config)
  there.save_pretrained(tmp_path)
  processor = transformers.ViTImageProcessorPil(size={"height": 21, "width": 21})
  processor.save_pretrained(tmp_path)
  source = f"images:{pictures / 'classes'}"
  metrics = zoo.evaluate_model(tmp_path, task="classification", data=source, batch_size=5)

  records = opened(source)
  logits = there(pixels(processor, records)).logits.detach().numpy()
  label = [[1, 2, 0][record["label"]] for record in records]  # The folders are blue, red, tree.
  assert metrics["accuracy"] == np.mean(logits.argmax(1) == label)
  probe = zoo.evaluate_model(
    tmp_path, task="linear_probe", data=source, split="train[:6]", train_split="train[6:]", shots=[2], repeats=2
  )
  assert set(probe) == {f"{row}{name}" for row in ("", "pixels/") for name in ("accuracy_2_shot", "std_2_shot")} | {
    "majority/accuracy_2_shot"
  }
