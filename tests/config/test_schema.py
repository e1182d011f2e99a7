import json
import re

import pytest

from tests.config.test_loading import file, loaded, said

__all__ = ["file"]  # A fixture.


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config.init=", "config.init is empty. Name a folder"),
    ("--config.init={}", "config.init is empty. Name a folder"),
    ("--config.optimizer.learning_rate=+-inf", "config.optimizer.learning_rate is '+-inf'. It must be a number."),
    ("--config.optimizer.learning_rate=nan", "config.optimizer.learning_rate is nan. Write a finite number"),
    ("--config.optimizer.warmup_steps=18446744073709551616", "an int of 20 digits. The largest is 2**63 - 1"),
    ("--config.optimizer.warmup_steps=1" + "0" * 400, "an int of 401 digits. The largest is 2**63 - 1"),
    ("--config.model.max_length=1000000000", "config.model.max_length is 1000000000. It must be at most 16777216."),
    ("--config.steps=1" + "0" * 5000, "It must be a number."),
    ("--config.steps=3000000000", "config.steps is 3000000000. It must be at most 2147483647."),
    ("--config.workdir=a\0b", "config.workdir is 'a\\x00b'. It contains a lone surrogate or a NUL"),
    ("--config.data.source=\ud83d", "config.data.source is '\\ud83d'. It contains a lone surrogate"),
    ('--config.eval.evaluators={"v1.5": {}}', "config.eval.evaluators has the key 'v1.5'. Dots separate sections"),
    ('--config.model={"": 3}', "config.model has the key ''"),
    ("--config.mesh=" + "[" * 5000, "config.mesh is '[[[[["),
    ('--config.log={"evry": 3}', "config.log has no 'evry'. Did you mean 'every'?"),
    ('--config.log={"every": 0}', "config.log.every is 0. It must be at least 1."),
    ('--config.eval={"every": 5, "evaluators": []}', "config.eval.evaluators is []. It must be a mapping."),
    ("--config.log.wandb=[3]", "config.log.wandb is [3]. It must be a str, a mapping"),
    ("--config.checkpoint.best=3", "config.checkpoint.best is 3. It must be the name of a metric (str), or None."),
    ("--config.bad_loss.spike=true", "config.bad_loss.spike is True. It must be a number, or None."),
  ],
)
def test_what_no_function_could_take_is_refused_wherever_it_is(file, argument, message):
  assert message in said(file, argument)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("import sys\nsys.exit('bye')\n", r"line 2: SystemExit: bye"),
    ("def get_config():\n  raise SystemExit(3)\n", r"line 2: SystemExit: 3"),
    (
      "x = []\nx.append(x)\ndef get_config():\n  return {'a': x}\n",
      r"config.a.0.0.* is nested more than 200 levels deep, or",
    ),
    (
      "x = 0\nfor _ in range(5000): x = [x]\ndef get_config():\n  return {'a': x}\n",
      r"is nested more than 200 levels deep",
    ),
  ],
)
def test_a_config_file_that_gives_no_end_of_data_or_none_is_one_line(file, content, message):
  file.write_text(content)
  assert re.search(message, said(file))


def test_a_section_that_replaces_another_has_the_defaults_of_what_it_leaves_out(file):
  sections = {
    "checkpoint": {"every": 7},
    "bad_loss": {"action": "skip"},
    "timeouts": {"step": 9},
    "eval": {},
    "log": {},
  }
  config = loaded(file, *(f"--config.{name}={json.dumps(section)}" for name, section in sections.items()))
  assert config.checkpoint.to_dict() == {"every": 7, "keep": 2, "best": None, "best_mode": "max"}
  assert config.bad_loss.to_dict() == {"action": "skip", "spike": None, "most_in_a_row": 10}
  assert config.timeouts.to_dict() == {"start": 300, "heartbeat": 100, "step": 9, "other": 3600}
  assert config.eval.to_dict() == {"every": 0, "evaluators": {}}
  assert config.log.to_dict() == {"every": 50, "tensorboard": False, "wandb": None}
