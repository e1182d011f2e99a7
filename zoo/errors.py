"""How the zoo tells a user what went wrong: one line with what is wrong, the values, and the way out."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """A mistake in a config, a file or the data. The message is one line; `train.py` prints it and exits with status 2."""

  def __init__(self, message: str):
    super().__init__(" ".join(message.split()))


def did_you_mean(word: str, options: Iterable[str]) -> str:
  """`" Did you mean 'depth'?"` for the option nearest to `word`, or `""` if none is near."""
  near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
  return f" Did you mean '{near[0]}'?" if near else ""
