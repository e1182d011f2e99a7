import hashlib
import importlib
import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from zoo.data import package_data
from zoo.data.builders.emoji import CONFIGS, VENDORS, Emoji, split_of
from zoo.data.sources import open_source
from zoo.errors import UserError

CONCEPTS = [json.loads(line) for line in package_data.lines("emoji/concepts.jsonl")]
# A dataset that was prepared from other files must not be taken for this one: a new file needs a new VERSION.
VERSIONS = {
  ("emoji", "1.0.1"): "4254b5aa9b8a1d29",
  ("sotu", "1.0.1"): "47ec3f9776e0f803",
  ("digits", "1.0.0"): "315cc6bced8d0cb8",
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Opens a split of one of our datasets in a new folder."""
  folder = tmp_path_factory.mktemp("prepared")
  return lambda name, split: open_source(f"tfds:{name}", split, str(folder))


@pytest.fixture(scope="module")
def drawings():
  """float32 [vendors, concepts, 32 * 32 * 3], RGB on white from 0 to 1."""
  sheets = np.stack([package_data.tiles(f"emoji/{vendor}.webp", 32, "RGBA") for vendor in VENDORS]) / np.float32(255)
  alpha = sheets[..., 3:]
  return (sheets[..., :3] * alpha + 1 - alpha).reshape(len(VENDORS), len(CONCEPTS), -1)


def places(config, split):
  """(vendor, concept) of every drawing of a split."""
  numbered = [(v, c) for v in range(len(VENDORS)) for c in range(len(CONCEPTS))]
  return np.array([(v, c) for v, c in numbered if split_of(CONCEPTS[c], VENDORS[v], config) == split]).T


def nearest(test, train, bound):
  """Mean absolute differences below `bound` between images of `test` and of `train`."""
  # Averaging blocks of pixels never enlarges the mean difference: the small images rule out nearly all pairs.
  small_test, small_train = (
    images.reshape(-1, 4, 8, 4, 8, 3).mean((2, 4)).reshape(len(images), -1) for images in (test, train)
  )
  distances = []
  for image, small in zip(test, small_test):
    candidates = train[abs(small_train - small).mean(-1) < bound]
    distances += [d for d in abs(candidates - image).mean(-1) if d < bound]
  return distances


def test_every_concept_has_a_name_of_its_own_in_plain_words():
  names = [concept["name"] for concept in CONCEPTS]
  assert len(set(names)) == len(names) == 1804
  assert sum(concept["is_flag"] for concept in CONCEPTS) == 261
  assert all(name == name.strip() and not set(name) & set(":_()&’“”*#") for name in names)
  named_only = [c["name"] for c in CONCEPTS if not c["is_flag"] and not c["keywords"]]
  assert len(named_only) < 20, named_only


def test_vendors_draw_every_concept_differently(drawings):
  for one, other in ((0, 1), (0, 2), (1, 2)):
    assert abs(drawings[one] - drawings[other]).mean(-1).min() >= 0.01


@pytest.mark.parametrize("config, concepts", [("rotation", 1543), ("flags", 261)])
def test_of_each_concept_two_drawings_train_and_the_third_is_held_out_in_turn(config, concepts):
  (train_vendors, train), (test_vendors, test) = places(config, "train"), places(config, "test")
  assert sorted(test) == sorted(set(train)) and len(test) == concepts
  assert np.unique(train, return_counts=True)[1].tolist() == [2] * concepts
  turns = np.bincount(test_vendors)
  assert turns.max() - turns.min() <= 1
  assert np.bincount(train_vendors).tolist() == (concepts - turns).tolist()


@pytest.mark.parametrize("config", CONFIGS)
def test_no_held_out_drawing_is_nearly_one_to_train_on(config, drawings):
  train, test = drawings[*places(config, "train")], drawings[*places(config, "test")]
  assert not nearest(test, train, 0.01)


def test_a_held_out_style_is_never_trained_on():
  (train_vendors, train), (test_vendors, test) = places("style", "train"), places("style", "test")
  assert set(train_vendors) == {0, 1} and set(test_vendors) == {2}
  assert set(train) == set(test) and len(test) == 1543


def test_held_out_concepts_are_held_out_by_all_vendors_and_with_their_variants(drawings):
  (_, train), (_, test) = places("concepts", "train"), places("concepts", "test")
  assert not set(train) & set(test)
  assert len(set(test)) == 200 and len(test) == 600 and len(train) == 3 * 1343
  assert not nearest(drawings[*places("concepts", "test")], drawings[*places("concepts", "train")], 0.02)

  def kind(concept):
    return frozenset(concept["name"].split()) - {"man", "woman", "person", "men", "women", "people", "boy", "girl"}

  assert not {kind(CONCEPTS[c]) for c in test} & {kind(CONCEPTS[c]) for c in train}


def test_emoji_come_as_tfds_gives_them(prepared, capfd):
  train, test = prepared("emoji/flags", "train"), prepared("emoji/flags", "test")
  assert (len(train), len(test)) == (522, 261)
  assert train.class_names == {"vendor": list(VENDORS)}
  example = test[7]
  assert set(example) == {"image", "name", "keywords", "concept", "vendor"}
  concept = CONCEPTS[example["concept"]]
  assert example["name"].decode() == concept["name"]
  assert [word.decode() for word in example["keywords"]] == concept["keywords"]
  sheet = package_data.tiles(f"emoji/{VENDORS[example['vendor']]}.webp", 32, "RGBA")
  assert (np.asarray(Image.open(io.BytesIO(example["image"]))) == sheet[example["concept"]]).all()
  assert capfd.readouterr() == ("", "")


def test_rotation_is_the_default(tmp_path):
  assert Emoji(data_dir=tmp_path).builder_config.name == "rotation"
  assert tfds.builder("emoji", data_dir=tmp_path).builder_config.name == "rotation"


def test_no_year_of_speeches_is_in_two_splits_and_each_spans_the_centuries(prepared):
  splits = {split: prepared("sotu", split) for split in ("train", "validation", "test")}
  assert [len(split) for split in splits.values()] == [225, 13, 11]
  speeches = {name: [split[i] for i in range(len(split))] for name, split in splits.items()}
  years = {name: [speech["year"] for speech in split] for name, split in speeches.items()}
  assert not set(years["train"]) & {*years["validation"], *years["test"]}
  assert not set(years["validation"]) & set(years["test"])
  for split in years.values():
    assert split == sorted(split) and split[0] <= 1801 and split[-1] >= 2005 and max(np.diff(split)) <= 25
  assert sum(len(speech["text"]) for split in speeches.values() for speech in split) == 12_185_751
  assert speeches["test"][0]["president"] == b"Thomas Jefferson"


def test_digits_are_balanced_and_split_without_overlap(prepared):
  train, test = prepared("digits", "train"), prepared("digits", "test")
  assert train.class_names == {"label": list("0123456789")}
  examples = {name: [split[i] for i in range(len(split))] for name, split in (("train", train), ("test", test))}
  assert np.bincount([e["label"] for e in examples["train"]]).tolist() == [400] * 10
  assert np.bincount([e["label"] for e in examples["test"]]).tolist() == [100] * 10
  images = {name: {e["image"] for e in split} for name, split in examples.items()}
  assert len(images["train"]) == 4000 and len(images["test"]) == 1000 and not images["train"] & images["test"]
  pixels = np.asarray(Image.open(io.BytesIO(examples["test"][0]["image"])))
  assert pixels.shape == (28, 28) and pixels.max() > 200


@pytest.mark.parametrize("name, version", VERSIONS)
def test_a_new_file_has_a_new_version(name, version):
  digest = hashlib.sha256()
  for path in sorted((package_data.FOLDER / name).iterdir()):
    if not path.name.startswith("LICENSE"):
      digest.update(path.read_bytes())
  assert digest.hexdigest()[:16] == VERSIONS[name, version], "Raise VERSION in zoo/data/builders and note it here."
  importlib.import_module(f"zoo.data.builders.{name}")  # Which registers it.
  assert str(tfds.builder_cls(name).VERSION) == version


@pytest.mark.parametrize(
  "name, file", [("emoji/flags", "noto.webp"), ("sotu", "speeches.jsonl.xz"), ("digits", "digits.png")]
)
def test_a_damaged_file_is_one_line_and_no_record_is_left(name, file, tmp_path, monkeypatch):
  original = package_data.FOLDER
  monkeypatch.setattr(package_data, "FOLDER", tmp_path)
  folder = name.partition("/")[0]
  for path in (original / folder).iterdir():
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / path.name).write_bytes(path.read_bytes()[: -1000 if path.name == file else None])
  with pytest.raises(UserError, match=rf"^[^\n]*{file} is missing or corrupt[^\n]*$"):
    open_source(f"tfds:{name}", "train", str(tmp_path / "prepared"))
  assert not [*(tmp_path / "prepared").rglob("*.array_record*")]
