import sys
import threading

import pytest

from zoo import progress
from zoo.progress import Work, reported_by, silent


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(progress, "FIRST", 0.01)


def lines_of(seconds, total, per_second, unit="documents"):
  """What is reported about work that is looked at every tenth of a second of a fake clock."""
  lines = []
  work = Work("tokenising a", total, unit, lines.append, start=100.0)
  for tenth in range(1, 10 * seconds + 1):
    work.advance(per_second / 10)
    work.look(100 + tenth / 10)
  work.finish(100.0 + seconds)
  return lines


def test_short_work_is_not_mentioned(monkeypatch):
  monkeypatch.setattr(progress, "FIRST", 2.0)
  assert lines_of(1, 10, 10) == []


def test_long_work_is_reported_after_two_seconds_and_then_ever_more_rarely(monkeypatch):
  monkeypatch.setattr(progress, "FIRST", 2.0)
  assert lines_of(40, 40_000, 1000) == [
    "tokenising a: 2,000 of 40,000 documents, 00:38 left",
    "tokenising a: 6,000 of 40,000 documents, 00:34 left",
    "tokenising a: 18,000 of 40,000 documents, 00:22 left",
    "tokenising a: done in 00:40",
  ]
  hours = lines_of(3600, None, 7)
  assert hours[0] == "tokenising a: 14 documents" and len(hours) < 70
  assert lines_of(3, None, 0)[0] == "tokenising a: 00:02 so far"
  assert lines_of(3, 5, 0)[0] == "tokenising a: 0 of 5 documents"


def test_work_that_never_advances_is_reported_while_it_runs_and_lines_go_to_the_caller(quick):
  lines, spoken = [], threading.Event()
  report = lambda line: (lines.append(line), spoken.set())
  with reported_by(report), progress.progress("compiling"):
    assert spoken.wait(60)
  assert lines[0] == "compiling: 00:00 so far" and lines[-1] == "compiling: done in 00:00"
  assert not any("\r" in line or "\n" in line for line in lines)


def test_an_error_ends_the_reports_without_a_last_one(quick):
  lines, spoken = [], threading.Event()
  before = threading.active_count()
  with pytest.raises(KeyError), reported_by(lambda line: (lines.append(line), spoken.set())):
    with progress.progress("reading a"):
      assert spoken.wait(60)
      raise KeyError
  assert threading.active_count() == before and "done" not in lines[-1]


def test_silence_holds_in_its_context_alone(quick, capsys, monkeypatch):
  with silent(), progress.progress("fetching a"):
    threading.Event().wait(0.1)
  assert capsys.readouterr().err == ""
  with progress.progress("fetching a"):
    threading.Event().wait(0.1)
  assert "fetching a: done in 00:00\n" in capsys.readouterr().err  # To stderr by default.
  monkeypatch.setitem(sys.modules, "ipykernel", sys)
  with progress.progress("fetching b"):
    threading.Event().wait(0.1)
  output = capsys.readouterr()
  assert "fetching b: done in 00:00\n" in output.out and output.err == ""  # A notebook shows stderr as an error.
