import pytest

from zoo.evaluate.answer_scores import normalized, score_answer


@pytest.mark.parametrize(
  ("answer", "references", "exact", "f1"),
  [
    ("The Eiffel Tower.", ["Eiffel tower"], 1, 1),
    ("in Paris", ["Paris", "Rome"], 0, 2 / 3),
    ("Paris Paris", ["Paris"], 0, 2 / 3),  # A word counts at most as often as it occurs in the other answer.
    ("", [], 1, 1),
    ("", ["the"], 1, 1),  # An article alone is no answer.
    ("Paris", [], 0, 0),
    ("", ["Paris"], 0, 0),
    ("1,000", ["1000"], 1, 1),
    ("x-y", ["xy"], 1, 1),
    ("“Paris”", ["Paris"], 0, 0),  # Quotation marks beyond ASCII are no punctuation.
  ],
)
def test_answers_are_compared_as_squad_does(answer, references, exact, f1):
  assert score_answer(answer, references) == pytest.approx((exact, f1))


def test_an_article_goes_only_where_it_is_a_word():
  assert normalized("An  apple\nand a theatre") == "apple and theatre"
