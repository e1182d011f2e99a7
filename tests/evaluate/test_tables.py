from zoo.evaluate.tables import table


def test_a_table_has_the_model_first_and_a_dash_where_nothing_was_measured():
  metrics = {"chance/r1": 0.000629, "r1": 0.25, "r5": 1.0, "chance/r5": 0.5, "pixels/r5": 12345.678}
  assert table(metrics, "retrieval").splitlines() == [
    "retrieval      r1       r5",
    "model      0.2500   1.0000",
    "chance     0.0006   0.5000",
    "pixels          -  12345.7",
  ]


def test_counts_are_whole_and_a_perfect_share_is_not():
  assert table({"tokens": 65536.0, "accuracy": 1.0}).splitlines()[1] == "model   65536    1.0000"
