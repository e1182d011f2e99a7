import warnings

from zoo.compat.loading import report


def test_what_is_random_is_told_once(capfd):
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    report("a folder has no head: initialised at random.")
  assert [str(one.message) for one in told] == ["a folder has no head: initialised at random."]
  assert capfd.readouterr() == ("", "")
