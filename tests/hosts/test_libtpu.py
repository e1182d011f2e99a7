from types import SimpleNamespace

import pytest

from zoo.hosts import libtpu
from zoo.hosts.libtpu import NO_TPU, silence_libtpu


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  held = {"TPU_ACCELERATOR_TYPE": "as the user says"}
  monkeypatch.setattr(libtpu, "os", SimpleNamespace(environ=held))
  return held


def test_libtpu_is_spared_its_questions_where_no_tpu_is(tmp_path, environment):
  (tmp_path / "sys/bus/pci/devices/0000").mkdir(parents=True)
  (tmp_path / "sys/bus/pci/devices/0000/vendor").write_text("0x10de\n")
  silence_libtpu(str(tmp_path))
  assert environment == {**NO_TPU, "TPU_ACCELERATOR_TYPE": "as the user says"}


@pytest.mark.parametrize("sign", ["sys/bus/pci/devices/0000/vendor", "dev/accel0", "dev/vfio/1"])
def test_where_a_tpu_may_be_nothing_is_changed(tmp_path, environment, sign):
  (tmp_path / sign).parent.mkdir(parents=True)
  (tmp_path / sign).write_text("0x1ae0\n")
  silence_libtpu(str(tmp_path))
  assert environment == {"TPU_ACCELERATOR_TYPE": "as the user says"}
