"""Text in another encoding than UTF-8 is refused by name, never read with other letters."""

import pytest

from tests.data import toys
from zoo.data.bad_records import BadRecord
from zoo.data.choices import right_one
from zoo.data.fields import class_number, texts_of
from zoo.data.labelled_tokens import items_of
from zoo.data.question_answers import answers_of
from zoo.data.sources import open_source
from zoo.evaluate.prompts import _named

LATIN = "a café".encode("latin-1")
READ = {
  "texts": texts_of,
  "words": items_of,
  "each word": lambda value, what: items_of([b"a", value], what),
  "answers": answers_of,
  "label": lambda value, what: class_number(value, {}, what),
  "choice": lambda value, what: right_one(value, ["a", "b"], ["A", "B"], what),
}


@pytest.mark.parametrize("name", READ)
def test_bytes_of_another_encoding_are_a_bad_record(name):
  with pytest.raises(BadRecord, match=r"^x\.parquet row 3.* is not UTF-8: byte 5 is 0xe9\. Convert it\.$"):
    READ[name](LATIN, "x.parquet row 3")


def test_utf8_is_read_as_it_is():
  assert texts_of("\ufeffa café".encode(), "record 0") == ["a café"] == texts_of("a café", "record 0")


def test_files_beside_images_and_of_prompts_are_named(tmp_path):
  toys.write(tmp_path, {"dog.png": toys.png(7), "dog.txt": LATIN})
  with pytest.raises(BadRecord, match=r"dog\.txt is not UTF-8: byte 5 is 0xe9\."):
    open_source(f"images:{tmp_path}")[0]
  with pytest.raises(BadRecord, match=r"dog\.txt is not UTF-8"):
    _named(str(tmp_path / "dog.txt"), "class_names")
