"""Checks a built site: every link within it, every anchor and every image is there.

python -m scripts.check_site docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
  """The anchors of a page, and what it links to."""

  def __init__(self, text: str):
    super().__init__()
    self.anchors, self.links = {""}, []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    """Called by the parser."""
    given = dict(attrs)
    self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
    self.links += [given[name] for name in ("href", "src") if given.get(name)]


def broken(folder: Path) -> list[str]:
  """PAGE: LINK, for each link that leads nowhere."""
  files = (path for path in folder.rglob("*.html") if "_static" not in path.parts)  # A theme's templates are no pages.
  pages = {path.resolve(): Page(path.read_text()) for path in files}
  errors = []
  for path, page in pages.items():
    for link in page.links:
      parts = urlsplit(link)
      if parts.scheme or parts.netloc:
        continue
      target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
      if target.is_dir():
        target /= "index.html"
      there = target.exists() and (target not in pages or unquote(parts.fragment) in pages[target].anchors)
      if not there:
        errors.append(f"{path.relative_to(folder.resolve())}: {link}")
  return errors


def main() -> None:
  """Prints broken links, and exits with 1 if there are any."""
  errors = broken(Path(sys.argv[1]))
  print(*errors, sep="\n", end="\n" * bool(errors))
  sys.exit(bool(errors))


if __name__ == "__main__":
  main()
