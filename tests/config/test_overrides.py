import pytest

from tests.config.test_loading import file, loaded, said

__all__ = ["file"]  # A fixture.


def test_an_optional_section_that_is_not_there_is_begun(file):
  config = loaded(
    file,
    "--config.data.bad_records.most=0.1",
    "--config.data.bad_records.action=skip",
    "--config.init.source=runs/other",
    "--config.log.wandb.project=x",
    "--config.eval.evaluators.more.data.split=test",
  )
  assert config.data.bad_records.to_dict() == {"most": 0.1, "action": "skip"}
  assert (config.init.source, config.log.wandb.project, config.log.every) == ("runs/other", "x", 50)
  assert config.eval.evaluators.more.data.split == "test"


def test_a_section_takes_the_place_of_a_name(file):
  config = loaded(file, "--config.frozen.teacher=runs/one", '--config.frozen.teacher={"source": "runs/two"}')
  assert config.frozen.teacher.to_dict() == {"source": "runs/two"}


@pytest.mark.parametrize(
  ("argument", "message"),
  [
    ("--config.evl.x=1", "config has no 'evl'. Did you mean 'eval'?"),
    ("--config.wandb.x=1", "config has no 'wandb'."),
    ("--config.log.wandbb.x=1", "config.log has no 'wandbb'. Did you mean 'wandb'?"),
    ("--config.checkpoint.best.x=1", "config.checkpoint.best is None, not a mapping"),
    ("--config.data..x=1", "config.data has no ''."),
    ("--config.data.name.x=1", "not a mapping: it has no entries. Replace all of it, as in --config.data.name='{"),
  ],
)
def test_a_section_that_cannot_be_is_refused(file, argument, message):
  assert message in said(file, argument)
