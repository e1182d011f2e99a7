import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from zoo.errors import UserError, did_you_mean, exits_with_one_line, setting_up
from zoo.extras import PACKAGES, install

ROOT = Path(__file__).parent.parent


def test_the_nearest_word_is_suggested_and_a_far_one_is_not():
  assert did_you_mean("dept", ["depth", "dim"]) == " Did you mean 'depth'?"
  assert did_you_mean("colour", ["depth", "dim"]) == ""


def test_a_message_of_several_lines_becomes_one():
  assert str(UserError("one\n  two")) == "one two"


@pytest.mark.parametrize("error", [UserError("two\nlines"), OSError(28, "No space left on device", "runs/x")])
def test_a_program_ends_with_one_line_and_status_2(capsys, error):
  @exits_with_one_line
  def main(argv):
    raise error

  with pytest.raises(SystemExit) as caught:
    main([])
  assert caught.value.code == 2
  printed = capsys.readouterr().err
  assert printed.count("\n") == 1 and str(error.args[-1]).split()[-1] in printed
  with pytest.raises(type(error)):
    main(["--traceback"])


def test_a_program_warns_users_in_one_line():
  program = """
import warnings
from zoo.errors import exits_with_one_line
main = exits_with_one_line(lambda argv: warnings.warn("two\\nlines"))
main([])
"""
  told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
  assert told.stderr == "Warning: two lines\n"


@pytest.mark.parametrize(
  "error, status",
  [
    (ConnectionResetError(104, "Connection reset by peer"), 75),
    (OSError(101, "Network is unreachable"), 75),
    (TimeoutError("storage.googleapis.com took too long"), 75),
    (socket.gaierror(-3, "Temporary failure in name resolution"), 75),
    (OSError(28, "No space left on device"), 2),
    (BrokenPipeError(32, "Broken pipe"), 2),
    (ValueError("steps is -1"), 2),
  ],
)
def test_a_network_that_fails_is_no_mistake_whatever_was_made_of_it(error, status):
  @exits_with_one_line
  def main(argv):
    with setting_up():
      raise error

  with pytest.raises(SystemExit) as caught:
    main([])
  assert caught.value.code == status


def test_a_program_ends_with_one_line_and_status_130_on_ctrl_c(capsys):
  @exits_with_one_line
  def main(argv):
    raise KeyboardInterrupt

  with pytest.raises(SystemExit) as caught:
    main([])
  assert caught.value.code == 130 and capsys.readouterr().err == "Interrupted.\n"


def test_ctrl_c_while_a_command_is_being_imported_is_one_line():
  program = """
import sys
sys.argv = ["-m"]
import zoo
raise KeyboardInterrupt
"""
  ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
  assert ended.returncode in (-signal.SIGINT, 130) and ended.stderr == "Interrupted.\n"


def test_ctrl_c_that_a_callback_drops_ends_the_program(capsys):
  class Dropping:
    def __del__(self):
      raise KeyboardInterrupt

  @exits_with_one_line
  def main(argv):
    Dropping()
    time.sleep(10)

  with pytest.raises(SystemExit) as caught:
    main([])
  assert caught.value.code == 130 and capsys.readouterr().err == "Interrupted.\n"


def test_a_program_that_is_wrong_itself_shows_where():
  @exits_with_one_line
  def main(argv):
    raise ValueError("a bug")

  with pytest.raises(ValueError, match="a bug"):
    main([])


@pytest.mark.parametrize(
  "error",
  [KeyError("depth"), IndexError("no 3"), OverflowError("too large"), AttributeError("none"), RecursionError("deep")],
)
def test_whatever_a_config_causes_while_setting_up_says_what_it_is(error):
  with pytest.raises(UserError, match=f"^{type(error).__name__}: .* \\(--traceback shows where.\\)$"), setting_up():
    raise error


def test_a_message_is_one_line_of_a_length_that_can_be_read():
  message = str(UserError(f"depth is {'9' * 5000}\n and \x1b[31m{'word ' * 5000} Lower it."))
  assert len(message) < 3100 and "\n" not in message and message.isprintable()
  assert message.startswith("depth is 9999") and message.endswith("Lower it.") and "\\x1b[31m" in message


@pytest.mark.parametrize("error", [ValueError("depth is 0"), TypeError("depth is text"), FileNotFoundError("no shard")])
def test_what_layers_refuse_while_setting_up_is_a_users_mistake(error):
  with pytest.raises(UserError, match=str(error)) as caught, setting_up():
    raise error
  assert caught.value.__cause__ is error


def test_a_users_mistake_while_setting_up_stays_as_it_was():
  with pytest.raises(UserError, match="^depth is 0$"), setting_up():
    raise UserError("depth is 0")


def test_an_extra_is_installed_by_what_pyproject_says_it_needs():
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
  for extra, packages in PACKAGES.items():
    needs = [re.split("[>=<]", requirement)[0] for requirement in project[extra]]
    assert packages.replace("'", "").split() == needs
  assert install("tpu") == "pip install 'jax[tpu]'"
