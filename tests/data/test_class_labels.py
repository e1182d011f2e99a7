import numpy as np
import pytest

from zoo.data.bad_records import BadRecord
from zoo.data.class_labels import ClassLabels
from zoo.errors import UserError


@pytest.mark.parametrize(
  ("label", "number"),
  [("Not Entailed", 1), ("not_entailed", 1), (b"ENTAILED", 0), (1, 1), ("1", 1), (1.0, 1), (True, 1)],
)
def test_a_label_is_a_name_in_whatever_case_or_a_number(label, number):
  index = ClassLabels(["entailed", "not-entailed"])(label, "line 3")
  assert index == number and index.dtype == np.int32


def test_numbers_of_a_source_that_names_its_classes_are_looked_up_by_name():
  numbers = ClassLabels(
    ["contradiction", "neutral", "entailment"], source_names=["entailment", "neutral", "contradiction"]
  )
  assert [int(numbers(label, "")) for label in (0, 1, 2, "entailment")] == [2, 1, 0, 2]
  with pytest.raises(BadRecord, match="line 7: label -1 is not one of the model's classes"):
    numbers(-1, "line 7")


def test_a_name_that_is_a_number_is_a_name_first():
  stars = ClassLabels(["1", "2", "3"])
  assert [int(stars(label, "")) for label in (1, "3")] == [0, 2]


def test_names_that_match_only_by_case_in_two_ways_are_not_guessed():
  with pytest.raises(BadRecord, match="label 'B-loc' is not one"):
    ClassLabels(["B-LOC", "b-loc"])("B-loc", "")


def test_a_user_says_which_class_a_label_is():
  numbers = ClassLabels(["LABEL_0", "LABEL_1"], {"pos": 1, "neg": "LABEL_0", 7: 1}, source_names=["neg", "pos"])
  assert [int(numbers(label, "")) for label in ("pos", "neg", 7, 1)] == [1, 0, 1, 1]


@pytest.mark.parametrize("label", ["fine", 2, -1, 0.5, None, "", float("nan"), [0]])
def test_a_label_that_is_none_is_refused_by_name(label):
  with pytest.raises(BadRecord, match="line 3: label .* is not one of the model's classes.* It has: bad, good"):
    ClassLabels(["bad", "good"])(label, "line 3")


def test_a_class_of_the_source_that_the_model_lacks_is_refused_when_it_is_opened():
  with pytest.raises(UserError, match=r"rows.csv has the class 'fine', not one of the model's: bad, good"):
    ClassLabels(["bad", "good"], source_names=["bad", "fine"], what="rows.csv")
  assert ClassLabels(["bad", "good"], {"fine": 1}, ["bad", "fine"])(1, "") == 1
