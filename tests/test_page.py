import json
import os
import re
from html.parser import HTMLParser

import pytest

from zoo import page
from zoo.errors import UserError
from zoo.page import Updates, axis_limits, figure, label, main, thinned, write

PIXEL = bytes.fromhex(
  "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
  "1f15c4890000000d49444154789c6360f8cf00000301010018dd8db00000000049454e44ae426082"
)


@pytest.fixture
def run(tmp_path):
  lines = [{"step": step, "time": 1.0, "loss": 5 / step, "seconds_per_step": 0.1, "seconds_data": 0.01,
            "seconds_device": 0.08, "tokens_per_second": 100.0} for step in range(1, 21)]  # fmt: skip
  lines[3]["loss"] = None  # Not finite.
  lines.append({"step": 20, "time": 2.0, "eval/test/R@1": 0.25, "eval/test/pixels/R@1": 0.1})
  folder = tmp_path / "a <b> run"
  folder.mkdir()
  (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  (folder / "config.json").write_text(json.dumps({"seed": 0, "model": {"family": "gpt", "dim": 8}}))
  (folder / "environment.json").write_text(json.dumps({"jax": "0.10.2"}))
  (folder / "samples.txt").write_text("once <script>alert(1)</script>")
  (folder / "retrieval.png").write_bytes(PIXEL)
  return folder


class Balanced(HTMLParser):
  """Remembers tags that were opened and not closed."""

  open, tags = (), ()

  def handle_starttag(self, tag, attrs):
    self.tags = (*self.tags, tag)
    if tag in ("figure", "svg", "table", "h1", "h2", "h3", "pre", "span"):
      self.open = (*self.open, tag)

  def handle_endtag(self, tag):
    if tag in ("figure", "svg", "table", "h1", "h2", "h3", "pre", "span"):
      assert self.open[-1] == tag
      self.open = self.open[:-1]


def test_a_run_is_one_file_with_its_curves_numbers_pictures_and_texts(run):
  text = write(run).read_text()
  parser = Balanced()
  parser.feed(text)
  assert parser.open == () and parser.tags.count("svg") == 5 and parser.tags.count("img") == 1
  for wanted in ("Evaluation: test", "R@1", "pixels 0.1", "model.family", "0.10.2", "tokens_per_second 100"):
    assert wanted in text
  assert "<script" not in text and "a &lt;b&gt; run" in text and "<b>" not in text
  assert not re.search(r"(src|href)=.?(http|//)", text)


def test_runs_stand_side_by_side(run, tmp_path):
  other = tmp_path / "other"
  other.mkdir()
  (other / "metrics.jsonl").write_text('{"step": 1, "loss": 7.0}\n{"step": 9, "loss": 6.0}\n')
  (other / "config.json").write_text(json.dumps({"seed": 0, "model": {"family": "gpt", "dim": 16, "act": "<i>"}}))
  text = page.page(run, [other])
  assert text.count("<polyline") == page.page(run).count("<polyline") + 1 and f"{other} 6" in text


def test_a_long_curve_keeps_its_spikes_and_its_end():
  curve = [(float(x), 0.0) for x in range(10_000)]
  curve[4321] = (4321.0, 9.0)
  thin = thinned(curve)
  assert len(thin) <= page.POINTS + 2 and (4321.0, 9.0) in thin and thin[-1] == curve[-1]
  assert [x for x, _ in thin] == sorted(x for x, _ in thin)
  assert thinned(curve[:50]) == curve[:50]


def test_the_loss_comes_first_and_what_it_was_trained_with_last():
  curves = dict.fromkeys(["accuracy", "grad_norm", "image_to_text", "learning_rate", "loss", "mfu", "seconds_per_step"])
  sections = page.sections({"run": curves})
  assert list(sections["Training"]) == ["loss", "accuracy", "image_to_text", "grad_norm", "learning_rate"]
  assert list(sections["Speed"]) == ["seconds_per_step", "mfu"]


def test_numbers_are_short_and_one_step_stands_on_an_axis_from_the_start():
  assert [page.number(y) for y in (0.0001683, 0.05, 12345.6, 0)] == ["1.7e-4", "0.05", "12,346", "0"]
  assert ">0</text>" in figure("top1", {"model": [(150.0, 0.5)]}) and ">150</text>" in figure(
    "top1", {"model": [(150.0, 0.5)]}
  )


def test_pictures_come_before_texts_and_numbers(run):
  for name in ("a.json", "a.txt", "z.png"):
    (run / name).write_bytes(b"{}")
  text = page.page(run)
  assert text.index(">z.png<") < text.index(">a.txt<") < text.index(">a.json<")


def test_a_curve_that_does_not_move_is_drawn():
  assert axis_limits([3.0, 3.0]) == (1.5, 4.5) and axis_limits([0.0]) == (-0.5, 0.5)
  assert "nan" not in figure("loss", {"loss": [(1.0, 0.0)]})


def test_curves_are_told_apart_by_what_differs():
  assert label("eval/test/pixels/R@1", "runs/a", 2, 1) == "pixels"
  assert label("eval/test/R@1", "runs/a", 2, 2) == "model runs/a" and label("loss", "runs/a", 1, 1) == "loss"


def test_a_comparison_leaves_the_pages_alone_and_says_where_configs_differ(run, tmp_path, capsys):
  test_runs_stand_side_by_side(run, tmp_path)
  assert main([str(run), str(tmp_path / "other")]) == 0
  assert capsys.readouterr().out.strip() == str(run / "comparison.html")
  text = (run / "comparison.html").read_text()
  assert (
    "<tr><th>model.dim<td>8<td>16" in text
    and "&lt;i&gt;" in text
    and "<tr><th>model.family<td>&quot;gpt&quot;<td>" not in text
  )
  assert not (run / "page.html").exists()


def test_memory_is_shown_in_gib_and_what_is_too_large_by_its_name(run, monkeypatch):
  (run / "metrics.jsonl").write_text('{"step": 1, "memory_peak": 3221225472}\n')
  monkeypatch.setattr(page, "IMAGE", 10)
  text = page.page(run)
  assert "memory_peak, GiB" in text and "</span> memory_peak, GiB 3" in text
  assert "bytes; the limit for such a file is 10" in text and "<img" not in text


def test_whatever_lies_in_a_run_folder_its_page_is_made(run):
  strange = [{"step": "x", "loss": 1}, {"step": None}, {"step": []}, {"step": 10**400}, {"step": True}, [3], 7]
  strange += [{"step": 21, "loss": 10**400, "\ud800": 3, "": 1e308, "deep": [{}]}, {"step": 22, "": -1e308}]
  with open(run / "metrics.jsonl", "a") as file:
    file.writelines(json.dumps(line) + "\n" for line in strange)
    file.write(
      "[" * 100_000 + "\n" + "9" * 5000 + "\n" + "x" * 3_000_000 + '\n{"step": 23, "loss": 0.125}\n{"step": 24'
    )
  for name in ("config.json", "environment.json", "samples.txt"):
    (run / name).write_text("[" * 100_000)
  os.mkfifo(run / "pipe.txt")
  (run / "nowhere.png").symlink_to("nothing")
  text = write(run).read_text()
  assert "loss 0.125" in text and "pipe.txt is not a regular file" in text and "nowhere.png is missing" in text


def test_a_page_is_written_at_the_end_and_before_it_only_when_it_is_time(run, monkeypatch):
  now, written = [0.0], []

  def slow(folder):
    now[0] += 1
    written.append(folder)

  monkeypatch.setattr(page, "write", slow)
  monkeypatch.setattr(page.time, "monotonic", lambda: now[0])
  updates = Updates(run, print)
  for waits in (0, 10, 41, 0):
    now[0] += waits
    updates.update(last=False)
  assert len(written) == 2
  updates.update(last=True)
  assert len(written) == 3


def test_a_run_does_not_end_over_its_page(run, monkeypatch):
  notes = []
  monkeypatch.setattr(page, "write", lambda folder: 1 / 0)
  Updates(run, notes.append).update(last=True)
  assert notes == ["page.html was not written: ZeroDivisionError: division by zero"]


def test_another_host_writes_no_page(run, monkeypatch):
  monkeypatch.setattr(page.jax, "process_index", lambda: 1)
  Updates(run, print).update(last=True)
  assert not (run / "page.html").exists()


def test_mistakes_are_told_in_one_line(tmp_path, capsys):
  with pytest.raises(UserError, match="has no metrics.jsonl"):
    write(tmp_path)
  with pytest.raises(SystemExit):
    main([])
  assert "Which run?" in capsys.readouterr().err
  with pytest.raises(SystemExit):
    main([str(tmp_path), "--out=a.html"])
  assert "Unknown flag --out=a.html" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["runs/a", "--help"]])
def test_help_tells_what_the_command_takes(words, capsys):
  assert main(words) == 0
  told = capsys.readouterr().out
  assert told.startswith("Renders a run as one self-contained HTML file")
  assert "python -m zoo.page runs/" in told and "--traceback" in told
