"""How the zoo tells a user what went wrong: one line with what is wrong, the values, and the way out."""

import contextlib
import difflib
import errno
import functools
import socket
import sys
from collections.abc import Callable, Generator, Iterable

MISTAKE = 2  # Exit statuses. This one does not get better by starting again, and schedulers are told so.
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h.
NETWORK = (errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH)
NETWORK += (errno.ENETDOWN, errno.ENETRESET, errno.ETIMEDOUT, errno.ESTALE)


class UserError(ValueError):
  """A mistake in a config, a file or the data. The message is one line; programs print it and exit with MISTAKE."""

  def __init__(self, message: str):
    super().__init__(" ".join(message.split()))


def shown(value: object, most: int = 100) -> str:
  """A value as it goes into a message: strange ones may be of any length."""
  text = repr(value)
  return text if len(text) <= most else f"{text[: most - 3]}..."


def did_you_mean(word: str, options: Iterable[str]) -> str:
  """`" Did you mean 'depth'?"` for the option nearest to `word`, or `""` if none is near."""
  near = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
  return f" Did you mean '{near[0]}'?" if near else ""


@contextlib.contextmanager
def setting_up() -> Generator[None]:
  """Takes a ValueError, TypeError or OSError for the user's mistake: raises it again as a UserError.

  For the part of a program that turns a config into models and data, where layers and libraries refuse sizes, names
  and files. Works as a decorator too: `@setting_up()`.
  """
  try:
    yield
  except UserError:
    raise
  except (ValueError, TypeError, OSError) as error:
    kind = f"{type(error).__name__}: " if isinstance(error, TypeError) else ""
    raise UserError(f"{kind}{error} (--traceback shows where.)") from error


@contextlib.contextmanager
def naming(where: str) -> Generator[None]:
  """As `setting_up`, the message beginning with which entry of the config was being set up."""
  try:
    with setting_up():
      yield
  except UserError as error:
    raise UserError(f"{where}: {error}") from error


def tell(line: str) -> None:
  """Writes a line on stderr. A disk that is full may be stderr's too: then the exit status alone tells."""
  with contextlib.suppress(OSError):
    print(line, file=sys.stderr, flush=True)


def status_of(error: BaseException | None) -> int:
  """TRY_AGAIN for a network that fails, a bucket's or a drive's, whatever was made of it on the way; else MISTAKE."""
  while error is not None:
    if isinstance(error, (TimeoutError, socket.gaierror)) or getattr(error, "errno", None) in NETWORK:
      return TRY_AGAIN
    error = error.__cause__
  return MISTAKE


def exits_with_one_line(main: Callable) -> Callable:
  """Decorates a program's `main(argv)`: a UserError or OSError ends in one line on stderr and its `status_of`.

  Ctrl-C ends in one line and status 130. With `--traceback` among the arguments the error is raised as it is.
  """

  @functools.wraps(main)
  def wrapper(*args, **kwargs):
    try:
      return main(*args, **kwargs)
    except (UserError, OSError) as error:
      if "--traceback" in (args[0] if args and isinstance(args[0], list) else sys.argv):
        raise
      tell(f"Error: {' '.join(str(error).split())}")
      raise SystemExit(status_of(error)) from error
    except KeyboardInterrupt as interrupt:
      tell("Interrupted.")
      raise SystemExit(130) from interrupt

  return wrapper
