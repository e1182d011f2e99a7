"""Entity spans from word tags, in any of the schemes IOB1, IOB2, IOE, IOBES and BILOU."""

import re
from collections.abc import Sequence

TAG = re.compile(r"O|[BIESLU]-.+")
_SAME = {"L": "E", "U": "S"}  # BILOU's last and unit are IOBES's end and single.


def are_tags(names: Sequence[str]) -> bool:
  """Whether all class names are entity tags."""
  return all(TAG.fullmatch(name) for name in names)


def entity_spans(tags: Sequence[str]) -> set[tuple[str, int, int]]:
  """Entity spans (kind, first word, last word), as in conlleval and seqeval's default mode.

  An entity continues with I or E of its kind after B or I; anything else ends it, and all but O begins another one,
  also an I that follows nothing. https://www.clips.uantwerpen.be/conll2000/chunking/

  >>> sorted(entity_spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"]))
  [('LOC', 3, 3), ('LOC', 4, 4), ('PER', 0, 1)]
  """
  spans, begin, kind, before = set(), None, "", "O"
  for word, tag in enumerate([*tags, "O"]):
    place, _, of = tag.partition("-")
    place = _SAME.get(place, place)
    goes_on = begin is not None and place in ("I", "E") and before in ("B", "I") and of == kind
    if begin is not None and not goes_on:
      spans.add((kind, begin, word - 1))
      begin = None
    if not goes_on and place != "O":
      begin, kind = word, of
    before = place
  return spans
