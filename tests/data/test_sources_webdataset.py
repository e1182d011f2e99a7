import io
import os
import tarfile

import pytest

from tests.data import toys
from tests.data.toys import everything
from zoo.data.bad_records import BadRecord
from zoo.data.sources import open_source
from zoo.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


def texts(source):
  return [record["text"] for record in everything(source)]


def samples(numbers):
  return {
    f"part/{i:03}.{ending}": content
    for i in numbers
    for ending, content in [
      ("png", toys.png((i, i, i))),
      ("txt", f"number {i}"),
      ("json", f'{{"year": {i}, "text": "not this"}}'),
      ("seg.png", b"raw"),
    ]
  }


def test_members_of_a_key_are_an_example(tmp_path):
  toys.write_tar(tmp_path / "a.tar", samples(range(4)))
  toys.write_tar(tmp_path / "b.tar", samples(range(4, 7)) | {"part/006.cls": "3\n"})
  source = open_source(f"webdataset:{tmp_path}/*.tar")
  records = sorted(everything(source), key=lambda record: record["__key__"])
  assert [record["__key__"] for record in records] == [f"part/{i:03}" for i in range(7)]
  six = {"image": toys.png((6, 6, 6)), "text": "number 6", "year": 6, "seg.png": b"raw", "label": 3}
  assert records[6] == {"__key__": "part/006", **six}
  assert texts(source) != sorted(texts(source))
  parts = [open_source(f"webdataset:{tmp_path}", split) for split in ("train[:60%]", "train[60%:]")]
  assert [record for part in parts for record in everything(part)] == everything(source)


def test_a_shard_is_listed_once_and_again_when_it_changed(tmp_path, monkeypatch):
  toys.write_tar(tmp_path / "a.tar", samples(range(2)))
  assert len(open_source(f"webdataset:{tmp_path}")) == 2
  with monkeypatch.context() as patch:
    patch.setattr("tarfile.open", None)
    assert len(everything(open_source(f"webdataset:{tmp_path}"))) == 2
  toys.write_tar(tmp_path / "a.tar", samples(range(3)))
  assert len(open_source(f"webdataset:{tmp_path}")) == 3


def test_names_of_members_are_not_used_as_paths(tmp_path):
  toys.write_tar(tmp_path / "a.tar", {"../../outside.txt": "text", "/etc/other.txt": "more"})
  assert sorted(texts(open_source(f"webdataset:{tmp_path}"))) == ["more", "text"]
  assert not (tmp_path.parent.parent / "outside.txt").exists()


@pytest.mark.parametrize("cut", [100, 600, 1500])
def test_a_truncated_shard_is_named(tmp_path, cut):
  toys.write_tar(tmp_path / "whole.tar", {"a.png": b"x" * 1000, "b.png": b"y" * 1000})
  (tmp_path / "a.tar").write_bytes((tmp_path / "whole.tar").read_bytes()[:cut])
  with pytest.raises(UserError, match=r"a\.tar is (truncated|not an intact)"):
    open_source(f"webdataset:{tmp_path}/a.tar")


@pytest.mark.parametrize(
  "harm, message",
  [
    (lambda tar: tar[:1024] + b"?" + tar[1025:], "is damaged: the header of the member at byte 1024 is not valid"),
    (lambda tar: tar[:1024] + bytes(512) + tar[1536:], "end mark at byte 1024 and goes on at byte 1536: it is damaged"),
    (lambda tar: tar + tar, "end mark at byte 3072 and goes on at byte 10240: .*several tar files in one"),
    (lambda tar: tar[:3072], "is truncated: it ends at byte 3072 without an end mark"),
  ],
)
def test_a_shard_of_which_a_part_would_be_lost_is_refused(tmp_path, harm, message):
  toys.write_tar(tmp_path / "whole.tar", {f"{i}.txt": f"number {i}" for i in range(3)})
  (tmp_path / "a.tar").write_bytes(harm((tmp_path / "whole.tar").read_bytes()))
  with pytest.raises(UserError, match=rf"a\.tar .*{message}"):
    open_source(f"webdataset:{tmp_path}/a.tar")


@pytest.mark.parametrize(
  "content, message",
  [
    (b"", r"a\.tar is not an intact, uncompressed tar file"),
    (b"\x1f\x8b compressed", r"a\.tar is not an intact, uncompressed tar file"),
    (b"\0" * 10240, r"a\.tar contains no files"),
  ],
)
def test_what_is_no_shard_is_named(tmp_path, content, message):
  (tmp_path / "a.tar").write_bytes(content)
  with pytest.raises(UserError, match=message):
    open_source(f"webdataset:{tmp_path}")


def test_a_shard_that_was_cut_or_removed_since_it_was_opened_is_named(tmp_path):
  toys.write_tar(tmp_path / "a.tar", {"a.png": b"x" * 1000})
  source = open_source(f"webdataset:{tmp_path}")
  (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:900])
  with pytest.raises(UserError, match=r"a\.tar became shorter: 'a\.png' is cut off"):
    source[0]
  (tmp_path / "a.tar").unlink()
  with pytest.raises(UserError, match=r"a\.tar cannot be read: No such file"):
    source[0]


@pytest.mark.parametrize("ending, content", [("json", "{"), ("cls", "cat"), ("txt", b"\xff")])
def test_a_broken_member_is_told_when_it_is_read(tmp_path, ending, content):
  toys.write_tar(tmp_path / "a.tar", {f"a.{ending}": content})
  source = open_source(f"webdataset:{tmp_path}")
  with pytest.raises(UserError, match=rf"a\.tar, key 'a' at byte 512: its \.{ending} (cannot be read|is not JSON)"):
    source[0]


def test_what_systems_leave_in_a_shard_is_no_example(tmp_path):
  members = {"./._0.png": b"x", "__MACOSX/0.png": b"x", ".DS_Store": b"x", "README": b"x", "LICENSE.txt": b"x"}
  members |= {"index.json": b"[]", "sums.md5": b"x", "./0.png": toys.png("red"), "./0.txt": "red", "1.txt": "lost"}
  toys.write_tar(tmp_path / "a.tar", members)
  records = sorted(everything(open_source(f"webdataset:{tmp_path}")), key=lambda record: record["__key__"])
  assert records == [{"__key__": "0", "image": toys.png("red"), "text": "red"}, {"__key__": "1", "text": "lost"}]


def test_shards_may_have_the_same_keys(tmp_path):
  for name in "ab":
    toys.write_tar(tmp_path / f"{name}.tar", {"0.png": toys.png("red"), "0.txt": name})
  assert sorted(texts(open_source(f"webdataset:{tmp_path}"))) == ["a", "b"]


@pytest.mark.parametrize("second", ["0.png", "0.jpg"])
def test_two_images_of_one_key_are_a_bad_record(tmp_path, second):
  with tarfile.open(tmp_path / "a.tar", "w") as tar:
    for name in ("0.png", "0.txt", "1.png", second):
      entry = tarfile.TarInfo(name)
      entry.size = 3
      tar.addfile(entry, io.BytesIO(b"abc"))
  source = open_source(f"webdataset:{tmp_path}")
  assert [source.where(index).partition("key ")[2] for index in source.broken] == ["'0' at byte 512"]
  with pytest.raises(
    BadRecord, match=rf"a\.tar, key '0' at byte 512: '0.png' at byte 512 and '{second}' at byte 3584 have"
  ):
    everything(source)


def test_a_hard_link_in_a_shard_is_the_file_that_it_means(tmp_path):
  with tarfile.open(tmp_path / "a.tar", "w") as tar:
    for name, link in (("0.txt", ""), ("1.txt", "0.txt")):
      entry = tarfile.TarInfo(name)
      entry.size, entry.linkname, entry.type = (0, link, tarfile.LNKTYPE) if link else (3, "", tarfile.REGTYPE)
      tar.addfile(entry, io.BytesIO(b"abc"))
  assert texts(open_source(f"webdataset:{tmp_path}")) == ["abc", "abc"]


@pytest.mark.parametrize(
  "file, harm", [("places.npy", slice(-8, -4)), ("names.json", slice(0, 3)), ("examples.npy", slice(40))]
)
def test_a_damaged_list_of_a_shard_is_made_anew(tmp_path, capsys, file, harm):
  toys.write_tar(tmp_path / "a.tar", samples(range(3)))
  before = everything(open_source(f"webdataset:{tmp_path}"))
  (path,) = (tmp_path.parent / os.environ["ZOO_CACHE"] / "tar").glob(f"*/{file}")
  content = bytearray(path.read_bytes())
  content[harm] = b"\1" * len(content[harm])
  path.write_bytes(content)
  assert everything(open_source(f"webdataset:{tmp_path}")) == before
  assert "It is rebuilt" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_told(tmp_path, monkeypatch):
  toys.write_tar(tmp_path / "a.tar", samples(range(2)))
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "a.tar"))
  with pytest.raises(UserError, match="Cannot write to the cache .*Set ZOO_CACHE"):
    open_source(f"webdataset:{tmp_path}")
