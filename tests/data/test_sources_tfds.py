import logging
import multiprocessing
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.data import toys
from zoo.data.sources import open_source
from zoo.errors import UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A folder in which toy_pairs is prepared."""
  folder = str(tmp_path_factory.mktemp("tfds"))
  open_source("tfds:toy_pairs", "train", folder)
  return folder


def test_a_builder_of_the_zoo_is_found_and_prepared_on_first_use(tmp_path):
  source = open_source("tfds:digits", "test[:5]", str(tmp_path))
  assert len(source) == 5
  assert source[0]["image"].startswith(b"\x89PNG")
  assert source.class_names["label"] == [str(digit) for digit in range(10)]


def test_preparing_says_nothing(tmp_path, capfd, caplog):
  open_source("tfds:toy_pairs", "train", str(tmp_path))
  assert capfd.readouterr() == ("", "")
  assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_features_come_as_they_are_and_images_encoded(prepared):
  source = open_source("tfds:toy_pairs", "test", prepared)
  assert len(source) == 7
  example = source[2]
  number = int(example["concept"])
  assert example["name"] == b"number %d" % number
  assert example["image"] == toys.png((number, number, number, 255 * (number % 2)), (8, 8), "RGBA")
  assert source.class_names == {"label": ["even", "odd"]}


@pytest.mark.parametrize(
  "split, count", [("train", 23), ("train[:90%]", 21), ("train[90%:]", 2), ("train[:5]+test", 12), ("all", 30)]
)
def test_splits_are_those_of_tfds(prepared, split, count):
  assert len(open_source("tfds:toy_pairs", split, prepared)) == count


def test_records_can_be_gone_through_and_end(prepared):
  source = open_source("tfds:toy_pairs", "test", prepared)
  assert [record["name"] for record in source] == [source[index]["name"] for index in range(7)]
  with pytest.raises(IndexError, match="has 7 records; index 7 is out of range"):
    source[7]


def test_prepared_data_need_no_builder(prepared, tmp_path):
  shutil.copytree(f"{prepared}/toy_pairs", tmp_path / "renamed")
  shutil.move(tmp_path / "renamed", tmp_path / "toy_pairs")
  assert len(open_source("tfds:toy_pairs:1.0.0", "train", str(tmp_path))) == 23


def test_a_source_travels_to_other_processes(prepared):
  source = open_source("tfds:toy_pairs", "train", prepared)
  assert pickle.loads(pickle.dumps(source))[3]["name"] == source[3]["name"]


def test_the_fingerprint_tells_splits_apart(prepared):
  prints = {open_source("tfds:toy_pairs", split, prepared).fingerprint for split in ("train", "train[:5]", "test")}
  assert len(prints) == 3
  assert open_source("tfds:toy_pairs", "test", prepared).fingerprint in prints


@pytest.mark.parametrize(
  "source, split, message",
  [
    ("tfds:toy_pears", "train", r"There is no dataset 'toy_pears' in tfds or in .*Did you mean 'toy_pairs'\?"),
    ("tfds:emojy", "train", r"no dataset 'emojy'.*Did you mean 'emoji'\?"),
    ("tfds:toy_pairs", "tset", r"tfds:toy_pairs has no split 'tset'. It has: train, test, and parts"),
    ("tfds:toy_pairs", "train[:", r"has no split 'train\[:'"),
    ("tfds:toy_pairs:9.0.0", "train", r"cannot be opened: .*9\.0\.0.*only: 1\.0\.0"),
    ("tfds:emoji/stile", "train", r"tfds:emoji has no config 'stile'. Did you mean 'style'\? It has: rotation"),
    ("tfds:mnist", "train", r"mnist is not prepared in .*TensorFlow.*tfds build mnist --file_format=array_record"),
    ("tfds:coco_captions", "train", r"TensorFlow.*tfds build coco_captions --file_format=array_record"),
    ("tfds:glue/cola", "train", r"TensorFlow.*tfds build glue --file_format=array_record"),
  ],
)
def test_what_cannot_be_opened_is_told_in_one_line(prepared, source, split, message):
  with pytest.raises(UserError, match=message):
    open_source(source, split, prepared)


def test_data_in_tensorflows_format_are_told_how_to_convert(tmp_path):
  open_source("tfds:toy_pairs", "train", str(tmp_path))
  info = tmp_path / "toy_pairs" / "1.0.0" / "dataset_info.json"
  info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
  with pytest.raises(UserError, match="only TensorFlow reads.*tfds convert_format"):
    open_source("tfds:toy_pairs", "train", str(tmp_path))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "empty"])
def test_a_damaged_file_is_named(tmp_path, damage):
  open_source("tfds:toy_pairs", "train", str(tmp_path))
  (file,) = (tmp_path / "toy_pairs" / "1.0.0").glob("*train*")
  content = file.read_bytes()
  if damage == "gone":
    file.unlink()
  else:
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
    file.write_bytes({"truncated": content[:-100], "flipped": flipped, "empty": b""}[damage])
  with pytest.raises(UserError, match="train.array_record"):
    source = open_source("tfds:toy_pairs", "train", str(tmp_path))
    for index in range(len(source)):
      source[index]


def test_an_unwritable_place_is_told(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="tfds:toy_pairs cannot be prepared in .*file/toy_pairs/1.0.0.*Set data_dir"):
    open_source("tfds:toy_pairs", "train", str(tmp_path / "file"))


@pytest.mark.slow
def test_two_processes_that_prepare_at_once_do_not_collide(tmp_path):
  processes = [multiprocessing.get_context("spawn").Process(target=prepare, args=(tmp_path,)) for _ in range(3)]
  for process in processes:
    process.start()
  for process in processes:
    process.join()
  assert [process.exitcode for process in processes] == [0, 0, 0]
  assert not list(tmp_path.glob("**/*incomplete*"))


def prepare(folder):
  source = open_source("tfds:toy_pairs", "train", str(folder))
  assert sorted(int(source[i]["concept"]) for i in range(len(source))) == list(range(23))
  assert np.all(tfds.builder("toy_pairs", data_dir=str(folder)).is_prepared())
