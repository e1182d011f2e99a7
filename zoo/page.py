"""Renders a run as one self-contained HTML file: python -m zoo.page runs/clip_emoji [runs/another ...]

Curves, throughput, config, environment, and evaluators' files of the run folder. There `train.py` writes `page.html`
when it evaluates or saves. For several folders each figure shows all runs, and the page, `comparison.html` in the first
one, lists the differences between their configs.
"""

import base64
import html
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from zoo import json_files
from zoo.config.schema import flatten
from zoo.errors import UserError, exits_with_one_line
from zoo.storage import as_path, replacing
from zoo.train import metrics

HELP = f"""{__doc__}
  --traceback           shows where an error comes from
  --help                shows this text"""
NAME, COMPARISON = "page.html", "comparison.html"
SHARE = 0.02  # Share of a run's time that its page may take.
NO_ARTIFACTS = ("config.json", "environment.json", "model.json", "wandb_id.txt")
FIRST, LAST = ("loss", "seconds_per_step"), ("grad_norm", "learning_rate")  # Of the figures of a section.
POINTS = 300  # Of a curve, at most.
IMAGE, IMAGES, TEXT, FILES = 2 * 2**20, 16 * 2**20, 20_000, 40  # Limits: bytes of one and of all, letters, files.
LARGEST = 2**26  # Bytes of a text of which the beginning is shown.
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 366, 190, 58, 10, 22
STYLE = """body{font:14px system-ui,sans-serif;margin:2em auto;max-width:1160px;color:#222}h2{margin-top:1.6em}
figure{display:inline-block;margin:0 12px 12px 0;vertical-align:top}figcaption{font-weight:600}
table{border-collapse:collapse}td,th{padding:2px 10px 2px 0;text-align:left;vertical-align:top}
pre{background:#f5f5f5;padding:8px;overflow:auto;max-height:24em;white-space:pre-wrap}img{max-width:100%}
svg text{font-size:10px;fill:#444}"""

Curve = list[tuple[float, float]]


def page(folder: Any, others: Sequence[Any] = ()) -> str:
  """The HTML of a run folder.

  Args:
    folder: of the run, here or in a bucket.
    others: run folders whose curves are shown too.

  Raises:
    UserError: a folder has no run.
  """
  folders = [as_path(other) for other in (folder, *others)]
  runs = {str(other): curves_of(other) for other in folders}
  title = html.escape(str(folder))
  parts = [f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"]
  for heading, names in sections(runs).items():
    parts.append(f"<h2>{html.escape(heading)}</h2>")
    for caption, members in names.items():
      shown = {
        label(name, run, len(members), len(runs)): runs[run][name]
        for run in runs
        for name in members
        if name in runs[run]
      }
      parts.append(figure(caption, shown))
  if len(folders) > 1:
    configs = {
      str(other): dict(flatten(read_json(other / "config.json")))
      for other in folders
      if (other / "config.json").exists()
    }
    parts.append(f"<h2>Where their configs differ</h2>{differing(configs)}")
  parts += artifacts(folders[0])
  for heading, name in (("Config", "config.json"), ("Environment", "environment.json")):
    path = folders[0] / name
    if path.exists():
      rows = [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in flatten(read_json(path))]
      parts.append(f"<h2>{heading}</h2>{table(rows)}")
  return "\n".join(parts) + "\n"


def write(folder: Any, others: Sequence[Any] = ()) -> Any:
  """Writes the page into the run folder, atomically -> its path."""
  text, path = page(folder, others), as_path(folder) / (COMPARISON if others else NAME)
  with replacing(path) as temporary:
    temporary.write_text(text, encoding="utf-8", errors="replace")
  return path


class Updates:
  """Rewrites the page of a running job, on the first host, taking at most SHARE of the run's time.

  Args:
    folder: of the run.
    note: called with the reason if a page cannot be written: no run should end over its page.
  """

  def __init__(self, folder: Any, note: Callable[[str], Any]):
    self._folder, self._note = folder, note
    self._ended, self._took = -math.inf, 0.0

  def update(self, *, last: bool) -> None:
    """Writes the page if it is due, or always with `last`."""
    before = time.monotonic()
    if jax.process_index() != 0 or (not last and before - self._ended < self._took / SHARE):
      return
    try:
      write(self._folder)
    except Exception as error:  # Any error.
      self._note(f"{NAME} was not written: {type(error).__name__}: {' '.join(str(error).split())}")
    self._ended = time.monotonic()
    self._took = self._ended - before


def curves_of(folder: Any) -> dict[str, Curve]:
  """Curves by metric: name -> (step, value), without values that are not finite. Bytes of memory become GiB."""
  path = folder / "metrics.jsonl"
  if not path.exists():
    raise UserError(f"{folder} has no metrics.jsonl. Name the folder of a run of train.py.")
  curves: dict[str, Curve] = {}
  for line in metrics.read(path):
    for name, value in line.items():
      if name not in ("step", "time") and finite(value):
        scale, unit = (2**30, ", GiB") if name.startswith("memory_") else (1, "")
        curves.setdefault(name + unit, []).append((line["step"], value / scale))
  return curves


def finite(value: Any) -> bool:
  """Whether a value is a finite number; JSON may hold ints beyond the range of floats."""
  return isinstance(value, int | float) and -sys.float_info.max <= value <= sys.float_info.max


def sections(runs: Mapping[str, Mapping[str, Curve]]) -> dict[str, dict[str, list[str]]]:
  """Groups metrics: heading -> caption of a figure -> its metrics; a model and its baselines share a figure."""
  sections: dict[str, dict[str, list[str]]] = {"Training": {}, "Speed": {}}
  names = list(dict.fromkeys(name for curves in runs.values() for name in curves))
  for name in sorted(names, key=lambda name: (name in LAST, name not in FIRST)):  # Others in order of appearance.
    parts = name.split("/")
    if parts[0] == "eval" and len(parts) > 2:
      sections.setdefault(f"Evaluation: {parts[1]}", {}).setdefault(parts[-1], []).append(name)
    elif name.startswith(("seconds_", "memory_")) or name.endswith("_per_second") or name == "mfu":
      split = name.startswith("seconds_") and name not in ("seconds_per_step", "seconds_compile")
      sections["Speed"].setdefault("seconds of a step" if split else name, []).append(name)
    else:
      sections["Training"].setdefault(name, []).append(name)
  return {heading: names for heading, names in sections.items() if names}


def label(name: str, run: str, metrics_in_it: int, runs: int) -> str:
  """A curve's label in the legend: what distinguishes it within its figure."""
  parts = name.split("/")
  series = "/".join(parts[2:-1]) or "model" if parts[0] == "eval" else name
  return " ".join([series] * (metrics_in_it > 1) + [run] * (runs > 1)) or series


def figure(caption: str, curves: Mapping[str, Curve]) -> str:
  """An SVG figure of curves over steps, with a legend if there are several."""
  curves = {name: thinned(curve) for name, curve in curves.items()}
  xs = [x for curve in curves.values() for x, _ in curve]
  ys = [y for curve in curves.values() for _, y in curve]
  (left, right), (low, high) = axis_limits(xs) if min(xs) < max(xs) else axis_limits([0, *xs]), axis_limits(ys)
  across = lambda x: LEFT + (x - left) / (right - left) * (WIDTH - LEFT - 10)
  up = lambda y: TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)
  drawn, legend = [], []
  for i, (name, curve) in enumerate(curves.items()):
    colour = COLOURS[i % len(COLOURS)]
    points = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve)
    x, y = curve[-1]
    drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>')
    drawn.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2.5" fill="{colour}"/>')
    legend.append(f'<span style="color:{colour}">&#9632;</span> {html.escape(name)} {number(y)}')
  for y in (low, (low + high) / 2, high):
    drawn.append(f'<line x1="{LEFT}" x2="{WIDTH - 10}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>')
    drawn.append(f'<text x="{LEFT - 4}" y="{up(y) + 3:.1f}" text-anchor="end">{number(y)}</text>')
  for x, anchor in ((left, "start"), (right, "end")):
    drawn.append(f'<text x="{across(x):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{x:,.0f}</text>')
  picture = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">{"".join(drawn)}</svg>'
  return f"<figure><figcaption>{html.escape(caption)}</figcaption>{picture}<br>{'<br>'.join(legend)}</figure>"


def number(y: float) -> str:
  """Formats a number for people."""
  if 1000 <= abs(y) < 1e7:
    return f"{y:,.0f}"
  if y and abs(y) < 0.001:
    return f"{y:.1e}".replace("e-0", "e-")
  return f"{y:.4g}"


def thinned(curve: Curve) -> Curve:
  """Downsamples a curve to POINTS: minimum and maximum of each interval, which keeps spikes, and the last point."""
  size = math.ceil(len(curve) / (POINTS // 2 - 1))
  if len(curve) <= POINTS:
    return curve
  points = []
  for first in range(0, len(curve), size):
    part = curve[first : first + size]
    points += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
  return [*points, curve[-1]]


def axis_limits(values: Sequence[float]) -> tuple[float, float]:
  """Limits of a plot's axis: minimum and maximum, widened where they are equal."""
  low, high = min(values), max(values)
  return (low, high) if low < high else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)


def artifacts(folder: Any) -> list[str]:
  """HTML of the evaluators' artifacts: images, then text, then JSON, each in order of name."""
  blocks, room = [], IMAGES
  kinds = (".png", ".txt", ".json")
  for path in sorted(folder.glob("*"), key=lambda path: (path.suffix in kinds and kinds.index(path.suffix), path.name)):
    if len(blocks) == FILES or path.suffix not in kinds or path.name in NO_ARTIFACTS:
      continue
    name, most = html.escape(path.name), min(IMAGE, room) if path.suffix == ".png" else LARGEST
    try:
      json_files.check_file(path, most)
    except UserError as error:  # Too large, or not a regular file.
      blocks.append(f"<h3>{name}</h3><p>{html.escape(str(error))}</p>")
      continue
    content = path.read_bytes()
    if path.suffix == ".png":
      room -= len(content)
      blocks.append(
        f'<h3>{name}</h3><img alt="{name}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
      )
    else:
      text = content.decode("utf-8", "replace")
      cut = f"\n... and {len(text) - TEXT:,} characters more" if len(text) > TEXT else ""
      blocks.append(f"<h3>{name}</h3><pre>{html.escape(text[:TEXT] + cut)}</pre>")
  return ["<h2>Outputs of evaluators</h2>", *blocks] if blocks else []


def read_json(path: Any) -> dict:
  """Reads a JSON object from a file; {} if that fails."""
  try:
    return json_files.read_json(path)
  except UserError:
    return {}


def table(rows: Iterable[tuple[str, str]]) -> str:
  """An HTML table of names and values."""
  cells = (f"<tr><th>{html.escape(str(name))}<td>{html.escape(str(value))}" for name, value in rows)
  return f"<table>{''.join(cells)}</table>"


def differing(configs: Mapping[str, Mapping[str, Any]]) -> str:
  """An HTML table of config differences: a column per run, a row per entry that differs, except `workdir`."""
  texts = {run: {name: json.dumps(value) for name, value in config.items()} for run, config in configs.items()}
  names = sorted({name for config in texts.values() for name in config} - {"workdir"})
  rows = [(name, [config.get(name, "") for config in texts.values()]) for name in names]
  head = "".join(f"<th>{html.escape(run)}" for run in texts)
  body = "".join(
    f"<tr><th>{html.escape(name)}" + "".join(f"<td>{html.escape(value)}" for value in values)
    for name, values in rows
    if len(set(values)) > 1
  )
  return f"<table><tr><th>{head}{body}</table>" if body else "<p>Nowhere.</p>"


@exits_with_one_line
def main(argv: list[str]) -> int:
  """Writes the page of a folder, or the comparison of several; returns the exit status."""
  if {"-h", "--help"} & {*argv}:
    print(HELP)
    return 0
  folders = [word for word in argv if word != "--traceback"]
  flag = next((word for word in folders if word.startswith("-")), None)
  if flag is not None:
    raise UserError(f"Unknown flag {flag}. --help lists the flags.")
  if not folders:
    raise UserError("Which run? python -m zoo.page runs/clip_emoji [runs/another ...] --help lists the flags.")
  if "" in folders:
    raise UserError("The name of a run is empty. Write python -m zoo.page runs/clip_emoji [runs/another ...]")
  print(write(folders[0], folders[1:]))
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
