import numpy as np
import pytest

from zoo.evaluate.entities import are_tags, entity_spans


@pytest.mark.parametrize(
  ("tags", "found"),
  [
    ("", set()),
    ("O O", set()),
    ("B-A I-A O B-B", {("A", 0, 1), ("B", 3, 3)}),
    ("I-A I-A I-B", {("A", 0, 1), ("B", 2, 2)}),  # IOB1, and what a model says that knows no scheme
    ("B-A B-A I-A", {("A", 0, 0), ("A", 1, 2)}),
    ("B-A I-A E-A S-A S-B", {("A", 0, 2), ("A", 3, 3), ("B", 4, 4)}),  # IOBES
    ("B-A L-A U-B", {("A", 0, 1), ("B", 2, 2)}),  # BILOU
    ("B-A E-A I-A", {("A", 0, 1), ("A", 2, 2)}),
    ("B-X-Y I-X-Y I-Y", {("X-Y", 0, 1), ("Y", 2, 2)}),  # A kind may hold a dash.
  ],
)
def test_entities_are_read_in_every_scheme(tags, found):
  assert entity_spans(tags.split()) == found


def test_random_tags_are_read_as_seqeval_reads_them():
  seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed")
  rng = np.random.default_rng(0)
  names = ["O", *(f"{place}-{kind}" for place in "BIES" for kind in ("PER", "LOC"))]
  for _ in range(500):
    tags = rng.choice(names, rng.integers(1, 9)).tolist()
    assert entity_spans(tags) == set(seqeval.get_entities(tags)), tags


def test_parts_of_speech_mark_no_entities():
  assert are_tags(["O", "B-PER"]) and not are_tags(["NOUN", "VERB"]) and not are_tags(["O", "PER"])
