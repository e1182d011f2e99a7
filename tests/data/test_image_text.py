import numpy as np
import pytest

from tests.data import toys
from zoo.config import registry
from zoo.data.image_text import image_text
from zoo.data.pipeline import batches
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError

BYTES = tokenizer("bytes")


def open_pairs(folder, **options):
  return image_text("images:.", data_dir=str(folder), tokenizer="bytes", **{"max_length": 16, **options})


def text(example):
  return BYTES.decode(example["tokens"][example["valid"]][1:-1])


def captions(records, steps=40):
  stream = batches(records, len(records), seed=0)
  return {
    text({key: stream[step][key][row] for key in ("tokens", "valid")})
    for step in range(steps)
    for row in range(len(records))
  }


@pytest.fixture
def pair(tmp_path):
  """One image with two captions and two keywords."""
  content = '{"text": ["a red one", "it is red"], "keywords": ["hot", "sun"], "thing": 7}'
  return toys.write(tmp_path, {"a.png": toys.png("red"), "a.json": content})


def test_an_example_is_an_image_and_a_caption_between_begin_and_end(pair):
  records = open_pairs(pair)
  example = records[0]
  assert {key: (value.shape, value.dtype.name) for key, value in example.items()} == {
    "image": ((5, 5, 3), "uint8"),
    "tokens": ((16,), "int32"),
    "valid": ((16,), "bool"),
    "group": ((), "int32"),
  }
  assert (example["image"] == [255, 0, 0]).all()
  assert example["tokens"].tolist() == [BYTES.bos, *b"a red one", BYTES.eos, *[BYTES.pad] * 5]
  assert example["valid"].tolist() == [True] * 11 + [False] * 5
  assert records.caption(0) == "a red one"
  assert records.info["vocab_size"] == BYTES.vocab_size and records.info["image_size"] == 5


def test_a_long_caption_is_cut_before_its_end(pair):
  example = open_pairs(pair, max_length=5)[0]
  assert example["tokens"].tolist() == [BYTES.bos, *b"a r", BYTES.eos]


def test_evaluation_takes_the_first_caption_and_template_training_any(pair):
  records = open_pairs(pair, templates=["{}!", "see {}"])
  assert text(records[0]) == "a red one!"
  assert captions(records) == {"a red one!", "see a red one", "it is red!", "see it is red"}
  # Nothing else in a template means anything.
  assert text(open_pairs(pair, templates=["{{}} {"])[0]) == "{a red one} {"


def test_training_takes_alternatives_at_their_rate(pair):
  assert captions(open_pairs(pair, alternatives="keywords", alternative_rate=1.0)) == {"hot", "sun"}
  assert captions(open_pairs(pair, alternatives="keywords", alternative_rate=0.0)) == {"a red one", "it is red"}
  assert len(captions(open_pairs(pair, alternatives="keywords"))) == 4
  assert text(open_pairs(pair, alternatives="keywords", alternative_rate=1.0)[0]) == "a red one"


def test_without_alternatives_the_caption_stays(tmp_path):
  toys.write(tmp_path, {"a.png": toys.png("red"), "a.json": '{"text": "red", "keywords": []}'})
  assert captions(open_pairs(tmp_path, alternatives="keywords", alternative_rate=1.0)) == {"red"}


def test_images_of_one_concept_are_one_group(tmp_path):
  rows = [{"file": f"{i}.png", "text": f"text {i % 2}", "concept": i // 2, "name": f"n{i // 3}"} for i in range(4)]
  toys.write(tmp_path, {f"{i}.png": toys.png("red") for i in range(4)})
  toys.write_jsonl(tmp_path / "captions.jsonl", rows)
  groups = lambda **options: {
    record["path"][-5]: int(example["group"])
    for records in [open_pairs(tmp_path, **options)]
    for record, example in ((records.source[i], records[i]) for i in range(4))
  }
  assert groups() == {"0": 0, "1": 0, "2": 1, "3": 1}
  by_name = groups(group_field="name")
  assert by_name["0"] == by_name["1"] == by_name["2"] != by_name["3"]
  for row in rows:
    del row["concept"]
  toys.write_jsonl(tmp_path / "captions.jsonl", rows)
  by_caption = groups()
  assert by_caption["0"] == by_caption["2"] != by_caption["1"] == by_caption["3"]


def test_an_image_with_several_captions_is_a_concept_of_its_own(tmp_path):
  toys.write(tmp_path, {f"{i}.png": toys.png("red") for i in range(4)} | {f"{i}.txt": "red\none" for i in range(3)})
  toys.write(tmp_path, {"3.txt": "red"})
  records = open_pairs(tmp_path)
  assert len({int(records[i]["group"]) for i in range(4)}) == 4


def test_the_background_is_as_asked(tmp_path):
  toys.write(tmp_path, {"a.png": toys.png((0, 0, 0, 0), (4, 4), "RGBA"), "a.txt": "nothing"})
  assert (open_pairs(tmp_path)[0]["image"] == 255).all()
  assert (open_pairs(tmp_path, background="black")[0]["image"] == 0).all()
  at_random = open_pairs(tmp_path, background="random")
  assert (at_random[0]["image"] == 255).all()
  stream = batches(at_random, 6, seed=0)
  colours = stream[0]["image"].reshape(6, -1, 3)
  assert (colours == colours[:, :1]).all() and len(np.unique(colours[:, 0], axis=0)) == 6


@pytest.mark.parametrize("options", [{}, {"background": "random"}, {"fit": "random_crop"}, {"fit": "pad"}])
def test_memory_changes_nothing_but_speed(tmp_path, options):
  toys.write(tmp_path, {f"{i}.png": toys.png((i, 0, 0, 99), (5, 7), "RGBA") for i in range(5)})
  toys.write(tmp_path, {f"{i}.txt": f"one {i}\nsome {i}" for i in range(5)})
  stream = [batches(open_pairs(tmp_path, cache=cache, **options), 4, seed=2) for cache in (False, True)]
  for step in (0, 1, 2, 0):
    first, second = (m[step] for m in stream)
    for key in first:
      np.testing.assert_array_equal(first[key], second[key])
  records = open_pairs(tmp_path, cache=True)
  before = records[0]
  for file in tmp_path.iterdir():
    file.unlink()
  assert (records[0]["image"] == before["image"]).all()


def test_a_config_section_opens_a_dataset_of_tfds(tmp_path):
  section = {"name": "image_text", "source": "tfds:toy_pairs", "split": "train[:7]", "data_dir": str(tmp_path)}
  records = registry.build("data", section | {"tokenizer": "bytes", "alternatives": "keywords", "templates": ("a {}",)})
  assert len(records) == 7 and records.info["image_size"] == 8
  for index in range(7):
    assert records.caption(index) == f"a number {records[index]['group']}"


@pytest.mark.parametrize(
  "options, message",
  [
    ({"fit": "crops"}, r"fit is 'crops'. Did you mean 'crop'\?"),
    ({"background": "pink"}, "background is 'pink'. It may be: white, black, random"),
    ({"templates": "a drawing"}, r"template 'a drawing' must be a str with \{\} where the caption goes"),
    ({"templates": [3]}, r"template 3 must be a str with"),
    ({"templates": []}, r"templates is empty. Give one"),
    (
      {"text_field": "texts"},
      r"has no field 'texts'. Did you mean 'text'\? It has: image, text, keywords, thing, path",
    ),
    ({"alternatives": "keyword"}, r"has no field 'keyword'. Did you mean 'keywords'\?"),
    ({"image_field": "thing"}, r"a\.png: the image cannot be decoded"),
    ({"text_field": "thing"}, r"thing is 7, not a str"),
    ({"max_length": 2}, "max_length is 2. It must be at least 3:"),
    ({"alternative_rate": 1.5}, "alternative_rate is 1.5. It must be from 0 to 1"),
    ({"image_size": 0}, "image_size is 0"),
  ],
)
def test_wrong_options_are_told(pair, options, message):
  with pytest.raises(UserError, match=message):
    open_pairs(pair, **options)[0]


def test_a_bad_record_is_named_when_it_is_read(tmp_path):
  rows = [
    {"file": "a.png", "text": "red"},
    {"file": "b.png", "text": "broken"},
    {"file": "c.png"},
    {"file": "d.png", "text": " "},
  ]
  toys.write(
    tmp_path, {name: toys.png("red") for name in ("a.png", "c.png", "d.png")} | {"b.png": toys.png("red")[:50]}
  )
  messages = {"b.png": "cannot be decoded", "c.png": "has no 'text'", "d.png": "has an empty caption"}
  for row in rows[1:]:
    toys.write_jsonl(tmp_path / "captions.jsonl", [rows[0], row])
    with pytest.raises(UserError, match=rf"{row['file']}.*{messages[row['file']]}"):
      records = open_pairs(tmp_path, text_field="text")
      [records[i] for i in range(2)]
