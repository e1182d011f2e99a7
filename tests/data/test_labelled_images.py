import numpy as np
import pytest

from tests.data import toys
from zoo.config import registry
from zoo.data.labelled_images import labelled_images
from zoo.data.pipeline import batches, eval_batches
from zoo.errors import UserError


@pytest.fixture
def folders(tmp_path):
  return toys.write(tmp_path, {f"{name}/{i}.png": toys.png(name) for name in ("blue", "red") for i in range(3)})


@pytest.fixture
def table(tmp_path):
  def write(labels):
    toys.write(tmp_path, {f"{i}.png": toys.png("red") for i in range(len(labels))})
    rows = [{"file": f"{i}.png", "label": label} for i, label in enumerate(labels)]
    toys.write_jsonl(tmp_path / "captions.jsonl", rows)
    return f"images:{tmp_path}"

  return write


def test_folders_of_classes(folders):
  records = labelled_images(f"images:{folders}")
  assert records.info["class_names"] == ["blue", "red"] and records.info["num_classes"] == 2
  batch = eval_batches(records, 6)[0]
  assert batch["image"].shape == (6, 5, 5, 3) and batch["label"].dtype == np.int32
  colour = np.where(batch["label"][:, None] == 0, [[0, 0, 255]], [[255, 0, 0]])
  assert (batch["image"] == colour[:, None, None]).all()


def test_a_config_section_opens_a_dataset_of_tfds(tmp_path):
  section = {"name": "labelled_images", "source": "tfds:toy_pairs", "data_dir": str(tmp_path), "background": "black"}
  records = registry.build("data", section)
  assert records.info["class_names"] == ["even", "odd"]
  for index in range(len(records)):
    example = records[index]
    assert (example["image"] == (example["image"][0, 0, 0])).all() and example["image"].shape == (8, 8, 3)
    assert example["label"] == (example["image"][0, 0, 0] > 0)  # Even ones are transparent.


def test_grey_images_become_colour(tmp_path):
  toys.write(tmp_path, {"1/a.png": toys.png(9, (4, 4), "L")})
  assert (labelled_images(f"images:{tmp_path}")[0]["image"] == np.full((4, 4, 3), 9)).all()


def test_labels_may_be_numbers_or_names(table):
  assert {int(labelled_images(table([3, "4"]))[i]["label"]) for i in range(2)} == {3, 4}
  records = labelled_images(table(["cat", "dog"]), class_names=["dog", "cat"])
  assert {int(records[i]["label"]) for i in range(2)} == {0, 1}
  assert labelled_images(table(["dog", "cat"])).info["class_names"] == ["cat", "dog"]


def test_memory_and_random_crops_go_together(folders):
  streams = [
    batches(labelled_images(f"images:{folders}", fit="random_crop", image_size=3, cache=cache), 4, seed=0)
    for cache in (True, False)
  ]
  for step in (0, 1, 0):
    np.testing.assert_array_equal(streams[0][step]["image"], streams[1][step]["image"])


@pytest.mark.parametrize(
  "labels, options, message",
  [
    (["cow"], {"class_names": ["cat", "dog"]}, "0.png: label 'cow' is not a class. The classes are: cat, dog"),
    ([2], {"class_names": ["cat", "dog"]}, "0.png: label 2 is not one of 0 to 1"),
    ([-1], {}, "0.png: label -1 is not one of"),
    ([0.5], {}, "0.png: label 0.5 is not one of"),
    ([10**400], {}, "0.png: label 1000+... is not one of"),
    ([[1, 2]], {}, r"0.png: label \[1, 2\] is not one of"),
    ([1], {"label_field": "lable"}, r"has no field 'lable'. Did you mean 'label'\?"),
    ([1], {"fit": "stretch"}, "fit is 'stretch'. It may be"),
    ([1], {"background": "random"}, "background is 'random'. It may be: white, black"),
    ([1], {"image_size": -1}, "image_size is -1"),
  ],
)
def test_wrong_labels_and_options_are_told(table, labels, options, message):
  with pytest.raises(UserError, match=message):
    labelled_images(table(labels), **options)[0]
