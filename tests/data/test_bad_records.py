import json

import numpy as np
import pytest

from tests.data import toys
from zoo.data import ledger
from zoo.data.bad_records import BadRecord, Policy, check_all, listing, policy, without_bad
from zoo.data.image_text import image_text
from zoo.data.labelled_images import labelled_images
from zoo.data.labelled_texts import labelled_texts
from zoo.data.language import language
from zoo.data.ledger import Ledger
from zoo.data.mixture import mixture
from zoo.data.packed import packed
from zoo.data.pipeline import Records, batches, eval_batches
from zoo.data.text_pairs import text_pairs
from zoo.errors import UserError

SKIP = {"action": "skip", "most": 0.5}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  monkeypatch.setenv("ZOO_CACHE", str(tmp_path_factory.mktemp("cache")))


class Numbers(Records):
  """Record i holds i, and in training also a random number; some records are bad."""

  def __init__(self, count, bad=(), most=0.5, first=0):
    self.count, self.broken, self.first = count, set(bad), first
    self.info, self.policy, self.may_skip = {"source": "numbers"}, Policy(most > 0, most), most > 0

  def __len__(self):
    return self.count

  def example(self, index, rng=None):
    if index in self.broken:
      raise BadRecord(f"numbers.txt, number {index} is bad.")
    return {"number": np.int32(self.first + index), "chance": np.float64(0 if rng is None else rng.random())}


def numbers(stream, steps=7):
  return np.stack([stream[step]["number"] for step in range(steps)])


@pytest.mark.parametrize(
  "section, rule",
  [
    ("stop", Policy()),
    ("skip", Policy(True, 0.01)),
    ({"action": "skip"}, Policy(True, 0.01)),
    ({"most": 0.2}, Policy(True, 0.2)),
    ({"action": "stop", "most": 0.2}, Policy()),
  ],
)
def test_what_is_done_about_bad_records_is_said_in_a_word_or_a_section(section, rule):
  assert policy(section) == rule


@pytest.mark.parametrize(
  "section, message",
  [
    ("skipp", r"bad_records.action is 'skipp'. Did you mean 'skip'\?"),
    ({"action": "skip", "share": 1}, "bad_records has no 'share'. It has: action, most"),
    ({"most": 1}, "bad_records.most is 1. It must be a fraction of the records:"),
    ({"most": float("nan")}, "bad_records.most is nan"),
    ({"most": True}, "bad_records.most is True"),
  ],
)
def test_what_cannot_be_done_is_refused(section, message):
  with pytest.raises(UserError, match=message):
    policy(section)


def test_the_next_good_record_stands_for_a_bad_one_and_nothing_else_changes():
  whole, some = batches(Numbers(13), 5, seed=3), batches(Numbers(13, bad=[4, 5, 12]), 5, seed=3)
  stands_for = {4: 6, 5: 6, 12: 0}
  wanted = [[stands_for.get(number, number) for number in row] for row in numbers(whole).tolist()]
  assert numbers(some).tolist() == wanted
  for step in range(7):
    same = ~np.isin(whole[step]["number"], [4, 5, 12])
    np.testing.assert_array_equal(some[step]["chance"][same], whole[step]["chance"][same])
    assert some[step].keys() == {"number", "chance"}


def test_hosts_threads_and_restarts_come_to_the_same_batches_and_the_same_bad_records():
  whole = batches(Numbers(13, bad=[4, 5, 12]), 6, seed=3)
  met = []
  noting = whole.noting(lambda step, bad: met.append((step, sorted(bad.tolist()))))
  for step, batch in zip(range(9), noting.iterate()):
    np.testing.assert_array_equal(batch["number"], whole[step]["number"])
  assert {record for _, records in met for record in records} == {4, 5, 12}
  of_hosts = {}
  for host in range(2):
    part = batches(Numbers(13, bad=[4, 5, 12]), 6, seed=3, process_index=host, process_count=2)
    note = lambda step, bad: of_hosts.setdefault(step, []).extend(bad.tolist())
    for step, batch in zip(range(3, 9), part.noting(note).iterate(3)):
      np.testing.assert_array_equal(batch["number"], whole[step]["number"][3 * host : 3 * host + 3])
  assert sorted((step, sorted(bad)) for step, bad in of_hosts.items()) == [one for one in met if one[0] >= 3]


@pytest.mark.slow
def test_worker_processes_pass_over_the_same_records():
  stream, met = batches(Numbers(13, bad=[4, 5, 12]), 6, seed=3, workers=2), []
  for step, batch in zip(range(5), stream.noting(lambda step, bad: met.append(step)).iterate(0)):
    np.testing.assert_array_equal(batch["number"], stream[step]["number"])
  assert met


def test_a_bad_record_ends_a_run_that_does_not_skip_and_says_what_to_do():
  with pytest.raises(BadRecord, match=r"number 4 is bad. Fix or remove it, or set data.bad_records=skip"):
    numbers(batches(Numbers(13, bad=[4], most=0), 5, seed=3))


def test_too_many_bad_records_end_a_run_that_names_the_first():
  stream = batches(Numbers(20, bad=range(3, 17), most=0.2), 5, seed=0, shuffle=False)
  with pytest.raises(
    UserError, match=r"numbers: 5 of 20 records are bad, more than the fraction 0.2 .*: numbers.txt, nu"
  ):
    numbers(stream, 1)


def test_in_a_mixture_a_record_of_the_same_member_takes_the_place():
  members = {"a": Numbers(5, bad=[4]), "b": Numbers(7, bad=[0, 6], first=100)}
  stream = batches(mixture(members, {"a": 0.5, "b": 0.5}), 6, seed=1)
  drawn = numbers(stream, 20).ravel()
  assert set(drawn) == {0, 1, 2, 3, 101, 102, 103, 104, 105}
  assert (drawn < 100).mean() == 0.5
  met = set()
  for _ in zip(range(20), stream.noting(lambda step, bad: met.update(bad.tolist())).iterate(0)):
    pass
  assert met == {4, 5, 11}


def test_evaluation_leaves_bad_records_out():
  members = {"a": Numbers(5, bad=[4]), "b": Numbers(7)}
  for records in members.values():
    records.without = lambda problems, records=records: Numbers(len(records) - len(problems), most=0)
  left = without_bad(mixture(members, {"a": 0.5, "b": 0.5}))
  assert len(left) == 11 and not left.may_skip
  assert sum(batch["weight"].sum() for batch in eval_batches(left, 4)) == 11
  with pytest.raises(UserError, match="numbers: 3 of 5 records are bad"):
    without_bad(Numbers(5, bad=[0, 1, 3]))


def test_all_records_are_checked_beforehand():
  assert check_all(Numbers(7)) == (True, "numbers: 0 of 7 records are bad.")
  fine, report = check_all(Numbers(7, bad=[1, 5], most=0))
  assert not fine
  ending = "numbers: 2 of 7 records are bad."
  assert report.splitlines() == ["numbers.txt, number 1 is bad.", "numbers.txt, number 5 is bad.", ending]
  assert check_all(Numbers(7, bad=[1, 5], most=0.3)) == (True, report)
  lines = check_all(Numbers(203, bad=range(103), most=0.5))[1].splitlines()
  assert len(lines) == 102 and lines[-2:] == ["... and 3 more", "numbers: 103 of 203 records are bad."]


@pytest.mark.parametrize("section, fine", [("stop", False), ({"most": 0.2}, False), ({"most": 0.4}, True)])
def test_what_would_stop_a_run_is_passed_over_while_it_is_listed_and_judged_then(section, fine):
  with listing():
    rule = policy(section)
  assert rule.skips and rule.allowed(7) == 7 and not policy("stop").skips
  few, many, left = Numbers(7), Numbers(7, bad=[1, 5], most=1.0), Numbers(5)
  few.policy = many.policy = left.policy = rule
  left.bad = ("number 1 is bad.", "number 5 is bad.")  # As an evaluator has left them out.
  for records in (many, left, mixture({"few": few, "many": many}, {"few": 0.5, "many": 0.5})):
    verdict, report = check_all(records)
    assert verdict == fine and "number 1 is bad" in report and ": 2 of " in report


def test_images_texts_and_labels_that_are_bad_are_passed_over(tmp_path):
  red, cut = toys.png("red"), toys.png("blue", (50, 50))[:80]
  toys.write(tmp_path, {f"pairs/{i}.png": red for i in range(4)} | {f"pairs/{i}.txt": "red" for i in range(5)})
  toys.write(tmp_path, {"pairs/4.png": cut, "pairs/3.txt": " \n.", "pairs/2.txt": "\n \nred", "classes/a/0.png": red})
  toys.write(tmp_path, {"classes/a/1.png": cut, "classes/b/2.png": red, "classes/3.png": red, "pairs/5.png": red})
  toys.write(tmp_path, {"texts.jsonl": '{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n{"text": \n[]\n'})
  toys.write_tar(
    tmp_path / "a.tar", {"0.png": red, "0.txt": "red", "1.png": red, "1.txt": "", "2.png": b"", "2.txt": "x"}
  )
  options = {"bad_records": {"action": "skip", "most": 0.8}}
  pairs = {"tokenizer": "bytes", "max_length": 8, **options}
  for records, count, named in (
    (image_text(f"images:{tmp_path}/pairs", **pairs), 4, {"4.png", "5.png"}),
    (image_text(f"webdataset:{tmp_path}/a.tar", **pairs), 1, {"key '1'", "key '2'"}),
    (labelled_images(f"images:{tmp_path}/classes", **options), 2, {"1.png", "3.png"}),
    (
      labelled_texts(f"jsonl:{tmp_path}/texts.jsonl", tokenizer="bytes", max_length=8, **options),
      1,
      {"line 2", "line 4"},
    ),
  ):
    assert len(batches(records, 6, seed=0)[0]) >= 2
    left = without_bad(records)
    assert len(left) == count
    assert all(any(name in error for error in left.bad) for name in named)
    assert [left[i].keys() for i in range(count)] == [left[0].keys()] * count
  with pytest.raises(BadRecord, match=r"3\.png is not in a class folder\."):
    labelled_images(f"images:{tmp_path}/classes")


def test_a_first_record_without_a_field_is_bad_like_any_other(tmp_path):
  rows = [{"file": f"{i}.png", "text": "a"} for i in range(6)]
  for row in rows:
    toys.write(tmp_path, {row["file"]: toys.png("red")})
  first = image_text_of(tmp_path, rows, "stop").source[0]["path"][-5]
  del rows[int(first)]["text"]
  assert len(without_bad(image_text_of(tmp_path, rows, SKIP))) == 5
  with pytest.raises(UserError, match="has no field 'text'. It has: image, path"):
    image_text_of(tmp_path, rows, "stop")


def image_text_of(folder, rows, bad_records):
  toys.write_jsonl(folder / "captions.jsonl", rows)
  return image_text(f"images:{folder}", tokenizer="bytes", max_length=8, bad_records=bad_records)


def test_texts_that_are_bad_are_left_out_when_they_are_opened(tmp_path):
  lines = [
    '{"text": "one", "source": "a", "target": "b"}',
    "{",
    '{"source": "c"}',
    '{"text": "t", "source": "d", "target": "e"}',
  ]
  (tmp_path / "data.jsonl").write_text("\n".join(lines))
  where, options = f"jsonl:{tmp_path}", {"tokenizer": "bytes", "max_length": 8, "bad_records": SKIP}
  for _ in range(2):  # The second time from the cache.
    records = language(where, **options)
    assert records.info["documents"] == 2 and records.info["bytes"] == 4
    assert [error.partition("data.jsonl ")[2][:6] for error in sorted(records.bad)] == ["line 2", "line 3"]
  pairs = {"name": "text_pairs", "source": where, "tokenizer": "bytes", "max_length": 8}
  assert sorted(text_pairs(where, **options).texts(i) for i in range(2)) == [("a", "b"), ("d", "e")]
  assert packed(pairs, max_length=8, bad_records=SKIP).bad == packed({**pairs, "bad_records": SKIP}, max_length=8).bad
  with pytest.raises(UserError, match=r"2 of 4 records are bad, more than the fraction 0.01 .*: .*data\.jsonl line"):
    language(where, **{**options, "bad_records": "skip"})
  with pytest.raises(BadRecord, match=r"data\.jsonl line [23]"):
    language(where, **{**options, "bad_records": "stop"})


def run(folder, records, start, stop, **opened):
  """The numbers that a run logs from one step to another, every second step."""
  stream, book, counts = batches(records, 3, seed=5), Ledger(folder, records, start, opened), {}
  for step, _ in zip(range(start + 1, stop + 1), stream.noting(book.met).iterate(start)):
    if step % 2 == 0:
      counts |= {step: book.look()}
  return counts


def test_a_ledger_reads_as_that_of_an_uninterrupted_run(tmp_path):
  records = Numbers(23, bad=[3, 11, 17, 20])
  whole = run(tmp_path / "whole", records, 0, 16, test=["x"])
  broken = run(tmp_path / "broken", records, 0, 7, test=["x"])
  broken |= run(tmp_path / "broken", records, 4, 9, test=["x"]) | run(tmp_path / "broken", records, 8, 16, test=["x"])
  assert broken == whole and whole[16] == {"bad_records": 4}
  first, second = (tmp_path / folder / "bad_records.jsonl" for folder in ("whole", "broken"))
  assert first.read_text() == second.read_text()
  lines = [json.loads(line) for line in first.read_text().splitlines()]
  assert lines[0] == {"step": 0, "data": "test", "record": None, "error": "x"}
  assert sorted(line["record"] for line in lines[1:]) == [3, 11, 17, 20]
  assert all(f"number {line['record']} is bad" in line["error"] for line in lines[1:])
  assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)


def test_a_ledger_counts_what_other_hosts_have_met(tmp_path, monkeypatch):
  records = Numbers(23, bad=[3, 11])
  monkeypatch.setattr(ledger, "_on_all_hosts", lambda pairs: [*pairs, (2, 11), (1, 3), (2, 3)])
  notes = []
  book = Ledger(tmp_path, records, 0, note=notes.append)
  book.met(0, np.array([3]))
  assert book.look() == book.look() == {"bad_records": 2}
  assert len(notes) == 1 and "bad_records.jsonl. The first: numbers.txt, number 3 is bad" in notes[0]
  lines = [json.loads(line) for line in (tmp_path / "bad_records.jsonl").read_text().splitlines()]
  assert [(line["step"], line["record"]) for line in lines] == [(1, 3), (2, 11)]


def test_a_ledger_ends_the_run_where_more_are_bad_than_may_be(tmp_path):
  records = Numbers(23, bad=[3, 11, 12, 13], most=0.1)
  with pytest.raises(UserError, match=r"3 of 23 records are bad, .*: numbers.txt, number 3 is bad.; numbers.txt, num"):
    book = Ledger(tmp_path, records, 0)
    book.met(0, np.array([3, 11, 13]))
    book.look()
  assert Ledger(tmp_path / "none", Numbers(5, most=0), 0).look() == {}
  assert not (tmp_path / "none").exists()
