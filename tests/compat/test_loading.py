import io
import logging
import warnings

from zoo.compat.loading import report


def test_what_is_random_is_told_once(capfd):
  with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    report("a folder has no head: initialised at random.")
  assert [str(one.message) for one in told] == ["a folder has no head: initialised at random."]
  assert capfd.readouterr() == ("", "")


def test_who_listens_to_the_old_logger_hears_what_is_random():
  heard = logging.StreamHandler(io.StringIO())
  logger = logging.getLogger("transformers.modeling_flax_utils")
  logger.addHandler(heard)
  try:
    with warnings.catch_warnings(record=True):
      warnings.simplefilter("always")
      report("initialised at random because the shapes did not match: head.")
  finally:
    logger.removeHandler(heard)
  assert heard.stream.getvalue() == "initialised at random because the shapes did not match: head.\n"
