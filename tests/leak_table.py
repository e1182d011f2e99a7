"""The table of leaks in docs/attention.md: made from what tests/test_leaks.py saw."""

BEGIN, END = "<!-- leaks: written by make leak-table -->", "<!-- end of leaks -->"
SEEN: dict[tuple[str, str, str], dict[str, float]] = {}


def replaced(text: str) -> str:
  """`text` with the table of what was seen between the two marks."""
  front, _, rest = text.partition(BEGIN)
  return f"{front}{BEGIN}\n{table()}{END}{rest.partition(END)[2]}"


def table() -> str:
  """Markdown: a row for each model and kernel; what moved on any of the meshes."""
  checks = list(dict.fromkeys(check for results in SEEN.values() for check in results))
  lines = ["| model | attention | meshes | " + " | ".join(checks) + " |", "|---" * (3 + len(checks)) + "|"]
  for model, kernel in dict.fromkeys((model, kernel) for model, kernel, _ in SEEN):
    rows = {mesh: results for (*names, mesh), results in SEEN.items() if names == [model, kernel]}
    cells = [cell([results[check] for results in rows.values() if check in results]) for check in checks]
    lines.append(f"| {model} | {kernel} | {'; '.join(rows)} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def cell(moved: list[float]) -> str:
  """The most that anything moved."""
  return f"{max(moved):.0e}" if any(moved) else "0" if moved else "-"
