import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import zoo
from tests.data import toys
from zoo.data.columns import say
from zoo.data.labelled_images import labelled_images
from zoo.data.labelled_texts import labelled_texts
from zoo.data.language import language
from zoo.data.sources import open_source
from zoo.data.text_pairs import text_pairs
from zoo.errors import UserError
from zoo.finetune.classes import classes_in
from zoo.train.model_data import records_for


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))
  say.cache_clear()


def table(folder, name, row, rows=3):
  toys.write_csv(folder / f"{name}.csv", [row] * rows)
  return f"csv:{folder}/{name}.csv"


def test_the_plain_names_are_taken_without_a_word(tmp_path, capsys):
  where = table(tmp_path, "plain", {"sentence": "no", "text": "a text", "label": 1, "class": 0})
  records = labelled_texts(where, tokenizer="bytes")
  assert records.fields == ("text", None, "label") and records[0]["label"] == 1
  assert capsys.readouterr().err == ""


def test_usual_names_are_taken_and_said_in_one_line_each(tmp_path, capsys):
  where = table(tmp_path, "usual", {"id": 7, "Review": "a text", "stars": 3})
  for _ in range(2):
    records = labelled_texts(where, tokenizer="bytes")
  assert records.fields == ("Review", None, "stars") and records[0]["label"] == 3
  assert capsys.readouterr().err.splitlines() == [
    f"{where}[train]: text_field is not set: it is 'Review', of id, Review, stars.",
    f"{where}[train]: label_field is not set: it is 'stars', of id, Review, stars.",
  ]
  language(table(tmp_path, "one", {"content": "a text of some length"}), tokenizer="bytes", max_length=5)
  assert "text_field is not set: it is 'content'" in capsys.readouterr().err


def test_two_texts_are_a_pair(tmp_path, capsys):
  where = table(tmp_path, "nli", {"premise": "a", "hypothesis": "b", "label": 0, "text": "c"})
  assert labelled_texts(where).fields == ("premise", "hypothesis", "label")
  assert "text_field is 'premise' and pair_field is 'hypothesis', of premise" in capsys.readouterr().err
  where = table(tmp_path, "news", {"article": "a long text", "highlights": "short"})
  assert text_pairs(where, tokenizer="bytes").texts(0) == ("a long text", "short")
  assert "source_field is 'article' and target_field is 'highlights'" in capsys.readouterr().err
  where = table(tmp_path, "both", {"text": "a", "summary": "b", "document": "c"})
  assert text_pairs(where, tokenizer="bytes", source_field="text").texts(0) == ("a", "b")
  assert "target_field is 'summary'" in capsys.readouterr().err


def test_what_a_config_says_counts_and_what_nobody_knows_is_refused(tmp_path, capsys):
  where = table(tmp_path, "other", {"text": "a", "utterance": "b", "label": 0, "kind": 1})
  records = labelled_texts(where, tokenizer="bytes", text_field="utterance", label_field="kind")
  assert records.fields == ("utterance", None, "kind")
  where = table(tmp_path, "odd", {"x": "a", "y": "b"})
  for pipeline, field in ((language, "text"), (text_pairs, "source"), (labelled_texts, "text")):
    with pytest.raises(UserError, match=f"has no field '{field}'.* It has: x, y"):
      pipeline(where, tokenizer="bytes")
  assert capsys.readouterr().err == ""


def test_bad_records_before_the_first_good_one_are_passed_over(tmp_path, capsys):
  toys.write(tmp_path, {"rows.csv": "review,stars\n" + "only one\n" * 2 + "".join(f"text {i},1\n" for i in range(9))})
  records = labelled_texts(f"csv:{tmp_path}", tokenizer="bytes", bad_records={"action": "skip", "most": 0.3})
  assert records.fields == ("review", None, "stars")


def test_images_of_other_names_are_taken(tmp_path, capsys):
  toys.write(tmp_path, {"0.png": toys.png("red"), "1.png": toys.png("blue")})
  toys.write_csv(tmp_path / "metadata.csv", [{"file_name": f"{i}.png", "category": i} for i in range(2)])
  records = labelled_images(f"images:{tmp_path}")
  assert sorted(int(records[i]["label"]) for i in range(2)) == [0, 1]
  assert "label_field is not set: it is 'category'" in capsys.readouterr().err


def test_the_length_is_the_models_and_said(tmp_path, capsys):
  where = table(tmp_path, "texts", {"text": "a text that is long " * 9, "label": 0}, rows=5)
  model = zoo.build("gpt", vocab_size=260, max_length=37, dim=6, depth=1, num_heads=3)
  for name, length in (("language", 37), ("labelled_texts", 37)):
    records = records_for(model, {"name": name, "source": where, "tokenizer": "bytes"})
    assert np.shape(records[0]["tokens"]) == (length,)
    assert f"{name}: max_length is not set: it is 37 tokens, of the 37 that the model takes." in capsys.readouterr().err
  inner = {"name": "documents", "source": where, "tokenizer": "bytes"}
  packed = records_for(model, {"name": "packed", "max_length": 29, "data": inner})
  assert np.shape(packed[0]["tokens"]) == (29,)
  longer = zoo.build("gpt", vocab_size=260, max_length=3000, dim=6, depth=1, num_heads=3)
  assert np.shape(records_for(longer, {"name": "language", "source": where, "tokenizer": "bytes"})[0]["tokens"]) == (
    1024,
  )
  capsys.readouterr()
  records_for(model, {"name": "language", "source": where, "tokenizer": "bytes", "max_length": 11})
  assert capsys.readouterr().err == ""


def test_classes_that_nobody_names_are_those_of_train_and_said(tmp_path, capsys):
  for name, labels in (("train", ("pos", "neg", "neu", "pos")), ("test", ("pos", "neg"))):
    toys.write_csv(tmp_path / f"{name}.csv", [{"text": f"{label}", "label": label} for label in labels])
  where = f"csv:{tmp_path}/{{split}}.csv"
  for split in ("train", "test", "train[:50%]"):
    records = labelled_texts(where, split, tokenizer="bytes")
    assert records.info["class_names"] == ["neg", "neu", "pos"] and records.info["num_classes"] == 3
    for index in range(len(records)):
      assert ["neg", "neu", "pos"][int(records[index]["label"])] == records.source[index]["text"]
  assert "class_names is not set: they are the 3 of 'label' in train: neg, neu, pos." in capsys.readouterr().err
  toys.write_csv(tmp_path / "long.csv", [{"text": "a", "label": "x" * 200_000}])
  labelled_texts(f"csv:{tmp_path}/long.csv", tokenizer="bytes")
  assert len(capsys.readouterr().err) < 500
  toys.write_csv(tmp_path / "test.csv", [{"text": "a", "label": "odd"}])
  with pytest.raises(UserError, match="label 'odd' is not a class. The classes are: neg, neu, pos"):
    labelled_texts(where, "test", tokenizer="bytes")[0]
  toys.write_csv(tmp_path / "numbers.csv", [{"text": "a", "label": "3"}, {"text": "b", "label": "1"}])
  assert labelled_texts(f"csv:{tmp_path}/numbers.csv", tokenizer="bytes").info["class_names"] is None


def test_a_label_in_another_encoding_names_no_class(tmp_path):
  labels = ["b\xe4d".encode("latin-1"), "bäd".encode(), b"good"]
  columns = {"text": ["one", "two", "three"], "label": pa.array(labels, pa.binary())}
  pq.write_table(pa.table(columns), tmp_path / "data.parquet")
  where = f"parquet:{tmp_path}/data.parquet"
  records = labelled_texts(where, tokenizer="bytes", bad_records={"action": "skip", "most": 0.5})
  assert records.info["class_names"] == ["bäd", "good"]
  assert classes_in(open_source(where, "train", None), "label", several=False) == ["bäd", "good"]
  with pytest.raises(UserError, match=r"label.* is not UTF-8: byte 1 is 0xe4. Convert it"):
    labelled_texts(where, tokenizer="bytes")[0]
