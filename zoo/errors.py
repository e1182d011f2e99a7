"""User errors: one line with what is wrong, the values, and the way out."""

import _thread
import contextlib
import difflib
import errno
import functools
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable
from typing import Any

MISTAKE = 2  # Exit statuses. MISTAKE tells a scheduler not to restart the job.
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h.
MISTAKES = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, AssertionError, RecursionError)
MISTAKES += (NotImplementedError,)
NETWORK = (errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ENETUNREACH)
NETWORK += (errno.ENETDOWN, errno.ENETRESET, errno.ETIMEDOUT, errno.ESTALE)

LARGE = (
  "Use a smaller model or a smaller batch. In training --plan shows what is needed, --config.sharding=fsdp shards "
  "the state over all devices, and a smaller batch_size, --config.optimizer.accumulate or --config.model.remat=full "
  "need less at a time."
)


class UserError(ValueError):
  """A mistake in a config, a file or the data. The message is one line; programs print it and exit with MISTAKE."""

  def __init__(self, message: str):
    super().__init__(one_line(message))


def one_line(message: str, word: int = 400, most: int = 3000) -> str:
  """A message as one terminal line: line breaks become blanks, control characters are escaped, the length is limited.

  >>> one_line("a name\\n\\x1b[31m")
  'a name \\\\x1b[31m'
  """
  cut = lambda text, size: text if len(text) <= size else f"{text[: size // 2]}...{text[-(size // 2) :]}"
  words = (cut(part, word) for part in cut(message, 100 * most).split())
  letters = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(words))
  return cut("".join(letters), most)


def shown(value: object, most: int = 100) -> str:
  """repr of a value for a message, shortened."""
  text = repr(value)
  return text if len(text) <= most else f"{text[: most - 3]}..."


def an(kind: type) -> str:
  """The name of a type after its article.

  >>> an(int), an(str)
  ('an int', 'a str')
  """
  return f"{'an' if kind.__name__[0].lower() in 'aeiou' else 'a'} {kind.__name__}"


def family_of(model: Any) -> str:
  """A model's name in messages: its family, or its class if no family built it."""
  return getattr(model, "spec", {}).get("family") or type(model).__name__


def did_you_mean(word: str, options: Iterable[str]) -> str:
  """`" Did you mean 'depth'?"` for the option nearest to `word`, or `""` if none is near."""
  matches = difflib.get_close_matches(word, list(options), n=1, cutoff=0.6)
  return f" Did you mean '{matches[0]}'?" if matches else ""


@contextlib.contextmanager
def setting_up() -> Generator[None]:
  """Context that re-raises exceptions which a config can cause as a UserError.

  For the part of a program that turns a config into models and data, where layers and libraries refuse sizes, names
  and files. Works as a decorator too: `@setting_up()`.
  """
  try:
    yield
  except UserError:
    raise
  except (*MISTAKES, OSError) as error:
    kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
    raise UserError(f"{kind}{error} (--traceback shows where.)") from error


@contextlib.contextmanager
def prefix_errors(where: str) -> Generator[None]:
  """As `setting_up`, with the config entry that was being set up at the start of the message."""
  try:
    with setting_up():
      yield
  except UserError as error:
    raise UserError(f"{where}: {error}") from error


def out_of_memory(error: BaseException) -> str | None:
  """The out-of-memory message of NumPy or of a device in an error; None if it is another error."""
  text = str(error).strip() or "Python has no more"
  of_device = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")  # JAX is not imported here.
  if isinstance(error, MemoryError) or (of_device and re.search("RESOURCE_EXHAUSTED|out of memory", text, re.I)):
    return f"Out of memory: {one_line(text.splitlines()[0].removeprefix('RESOURCE_EXHAUSTED:'), most=300).rstrip('.')}."
  return None


def tell(line: str) -> None:
  """Writes a line to stderr. If stderr is on a full disk too, only the exit status remains."""
  with contextlib.suppress(OSError):
    print(line, file=sys.stderr, flush=True)


def status_of(error: BaseException | None) -> int:
  """Exit status of an error: TRY_AGAIN if a network failure is in its chain of causes; else MISTAKE."""
  while error is not None:
    if isinstance(error, (TimeoutError, socket.gaierror)) or getattr(error, "errno", None) in NETWORK:
      return TRY_AGAIN
    error = error.__cause__
  return MISTAKE


def exits_with_one_line(main: Callable) -> Callable:
  """Decorates a program's `main(argv)`: a UserError, an OSError and an out-of-memory error end in one line on stderr
  and the error's `status_of`.

  Ctrl-C ends in one line and status 130. With `--traceback` among the arguments the error is raised as it is. Warnings
  of the zoo are a line each, too.
  """

  @functools.wraps(main)
  def wrapper(*args, **kwargs):
    try:
      with _warnings_of_one_line(), _interrupts_that_arrive():
        return main(*args, **kwargs)
    except (UserError, OSError, MemoryError, RuntimeError) as error:
      memory = out_of_memory(error)
      is_user_mistake = isinstance(error, UserError | OSError) or memory
      if not is_user_mistake or "--traceback" in (args[0] if args and isinstance(args[0], list) else sys.argv):
        raise
      tell(f"Error: {f'{memory} {LARGE}' if memory else one_line(str(error))}")
      raise SystemExit(status_of(error)) from error
    except KeyboardInterrupt as interrupt:
      tell("Interrupted.")
      raise SystemExit(130) from interrupt

  return wrapper


def interrupts_in_one_line() -> None:
  """Makes Ctrl-C end this process in one line from now on: a command's modules take seconds to import before `main`."""
  before = sys.excepthook

  def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
      tell("Interrupted.")
    else:
      before(kind, error, trace)

  sys.excepthook = hook
  sys.unraisablehook = _repeated(sys.unraisablehook)


@contextlib.contextmanager
def _interrupts_that_arrive() -> Generator[None]:
  """Context that repeats a KeyboardInterrupt which Python drops."""
  before = sys.unraisablehook
  sys.unraisablehook = _repeated(before)
  try:
    yield
  finally:
    sys.unraisablehook = before


def _repeated(before: Callable[[Any], Any]) -> Callable[[Any], None]:
  """A `sys.unraisablehook` that raises a KeyboardInterrupt again.

  Python drops one that is raised in a callback, such as JAX's of the garbage collector, and the program would go on.
  """

  def hook(unraisable: Any) -> None:
    if issubclass(unraisable.exc_type, KeyboardInterrupt):
      timer = threading.Timer(0.01, _thread.interrupt_main)  # Once the callback has returned.
      timer.daemon = True
      timer.start()
    else:
      before(unraisable)

  return hook


@contextlib.contextmanager
def _warnings_of_one_line() -> Generator[None]:
  """Shows warnings for users without the line of code that they come from, warnings for programmers with it."""
  before = warnings.formatwarning

  def formatted(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
  ) -> str:
    if category is UserWarning:
      return f"Warning: {one_line(str(message))}\n"
    return before(message, category, filename, lineno, line)

  vars(warnings).update(formatwarning=formatted)
  try:
    yield
  finally:
    vars(warnings).update(formatwarning=before)
