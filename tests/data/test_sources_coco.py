import json
from pathlib import Path

import pytest

from zoo.data.image_text import image_text
from zoo.data.sources import open_source
from zoo.errors import UserError

FILES = [f"COCO_val2014_{number:012}.jpg" for number in (42, 73, 9)]


def write(path: Path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content))


@pytest.fixture
def picture():
  emoji = open_source("tfds:emoji", "train[:1]")
  return emoji[0]["image"]


@pytest.fixture
def folder(tmp_path, picture):
  """As COCO is unpacked: a third image has no caption."""
  images = [{"id": 10 + i, "file_name": file} for i, file in enumerate(FILES)]
  captions = [(11, "b one"), (10, "a one"), (11, "b two"), (10, "a two"), (10, "a three")]
  annotations = [{"id": i, "image_id": image, "caption": text} for i, (image, text) in enumerate(captions)]
  write(tmp_path / "annotations" / "captions_val2014.json", {"info": {}, "images": images, "annotations": annotations})
  write(tmp_path / "annotations" / "instances_val2014.json", {"images": images, "annotations": [{"image_id": 10}]})
  (tmp_path / "val2014").mkdir()
  for file in FILES:
    (tmp_path / "val2014" / file).write_bytes(picture)
  return tmp_path


def texts_of(source):
  return {Path(source[i]["path"]).name: source[i]["text"] for i in range(len(source))}


WANTED = {FILES[0]: ["a one", "a two", "a three"], FILES[1]: ["b one", "b two"]}


@pytest.mark.parametrize("split", ["val", "validation"])
def test_all_captions_of_an_image_in_the_order_of_the_file(folder, split, picture):
  source = open_source(f"coco:{folder}", split)
  assert texts_of(source) == WANTED
  assert source[0]["image"] == picture and {source[i]["image_id"] for i in range(2)} == {10, 11}
  assert texts_of(open_source("coco:annotations/captions_val2014.json", "train", str(folder))) == WANTED


def test_images_may_lie_in_a_folder_of_images(folder):
  (folder / "images").mkdir()
  (folder / "val2014").rename(folder / "images" / "val2014")
  assert texts_of(open_source(f"coco:{folder}", "val")) == WANTED


def test_retrieval_sees_every_caption(folder):
  records = image_text(f"coco:{folder}", "val", tokenizer="bytes", image_size=8)
  assert sorted(len(records.captions_of(i)) for i in range(len(records))) == [2, 3]
  assert records[0]["group"] != records[1]["group"]


@pytest.mark.parametrize("path", [None, "val2014"])
def test_the_splits_of_karpathy(folder, path):
  sentences = lambda texts: [{"raw": text, "tokens": text.split()} for text in texts]
  images = [
    {"filename": file, "sentences": sentences(texts), "split": split, "cocoid": number}
    | ({} if path is None else {"filepath": path})
    for number, (file, texts, split) in enumerate(zip(FILES, (["x"], ["y", "z"], ["w"]), ("val", "test", "restval")))
  ]
  place = folder if path else folder / "val2014"
  write(place / "dataset_coco.json", {"images": images, "dataset": "coco"})
  opened = lambda split: texts_of(open_source(f"coco:{place}/dataset_coco.json", split))
  assert opened("test") == {FILES[1]: ["y", "z"]}
  assert opened("validation+restval") == {FILES[0]: ["x"], FILES[2]: ["w"]}
  assert len(opened("all")) == 3
  with pytest.raises(UserError, match="has no split 'train'. It has: restval, test, val, all."):
    opened("train")


@pytest.mark.parametrize(
  "place, change, message",
  [
    ("", None, "has no captions_train"),
    ("annotations/instances_val2014.json", None, r"has annotations without captions\."),
    ("annotations/captions_val2014.json", {"images": []}, "has neither lists 'images' and 'annotations'"),
    ("annotations/captions_val2014.json", {"annotations": [{"caption": "a", "image_id": 99}]}, "has no captioned"),
    ("annotations/captions_val2014.json", {"images": [{"id": 10, "file_name": "no.jpg"}]}, "names 'no.jpg', which is"),
    ("annotations/nothing.json", None, "has no captions_train"),
  ],
)
def test_what_cannot_be_opened_is_told_in_one_line(folder, place, change, message):
  if change:
    write(folder / place, json.loads((folder / place).read_text()) | change)
  with pytest.raises(UserError, match=message) as error:
    open_source(f"coco:{folder / place}", "train")
  assert "\n" not in str(error.value)


def test_entries_that_cannot_be_used_are_bad_records(folder):
  path = folder / "annotations" / "captions_val2014.json"
  content = json.loads(path.read_text())
  content["annotations"] += [{"image_id": 99, "caption": "of none"}, {"image_id": 12, "caption": "out"}]
  content["images"][2]["file_name"] = "../../secret.jpg"
  write(path, content)
  source = open_source(f"coco:{folder}", "val")
  assert len(source) == 4 and len(source.broken) == 2
  assert any("is outside the image folder" in error for error in source.broken.values())
  assert any("annotation 5 has no caption, or its image 99" in error for error in source.broken.values())
