import json
import os

import pytest

from zoo import json_files
from zoo.errors import UserError
from zoo.json_files import parse_json, read_json


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 201 + "1" + "}" * 201, "[" * 201 + "]" * 201])
def test_what_is_nested_too_deep_is_a_mistake_in_the_text(text):
  with pytest.raises(ValueError, match="nested more than 200 deep"):
    parse_json(text)


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, json.dumps([[[]] * 500, {"a": [3]}] * 500)])
def test_what_is_long_or_not_too_deep_is_read(text):
  assert parse_json(text) == json.loads(text) == parse_json(text.encode())


def test_a_list_that_holds_itself_is_deeper_than_any_depth():
  holds_itself = []
  holds_itself.append({"again": holds_itself})
  assert json_files.deeper(holds_itself, 1000)


def sparse(path):
  with open(path, "wb") as file:
    file.truncate(2**33)


@pytest.mark.parametrize(
  "make, says",
  [
    (os.mkfifo, r"is not a regular file, but a pipe\."),
    (os.mkdir, r"is not a regular file, but a folder\."),
    (lambda path: path.symlink_to("/dev/zero"), r"is not a regular file, but a device\."),
    (lambda path: path.symlink_to(path), "x.json cannot be read: "),
    (lambda path: path.symlink_to("nowhere"), "x.json is missing"),
    (sparse, "has 8,589,934,592 bytes; the limit for such a file is 268,435,456"),
    (lambda path: path.write_bytes(b"\xff{}"), "cannot be read as JSON: "),
    (lambda path: path.write_text(""), "cannot be read as JSON: Expecting value"),
    (lambda path: path.write_text("3" * 5000), "cannot be read as JSON: "),
    (lambda path: path.write_text("[3]"), "holds a list, not an object"),
  ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, make, says):
  make(tmp_path / "x.json")
  with pytest.raises(UserError, match=says):
    read_json(tmp_path / "x.json")
