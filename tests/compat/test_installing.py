import importlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import compat
from zoo.compat.families import FILES, names_in, old_names


@pytest.fixture
def installed():
  pytest.importorskip("transformers")
  compat.install()
  yield
  compat.uninstall()


def test_old_imports_find_our_classes_until_they_are_taken_back(installed):
  before = compat.FlaxCLIPTextModel.__module__
  compat.install()  # Once more changes nothing.
  transformers = importlib.import_module("transformers")
  for name, value in old_names().items():
    assert getattr(transformers, name) is value
  for file in FILES:
    module = importlib.import_module(file)
    for name, value in names_in(file).items():
      assert getattr(module, name) is value and value.__module__ == file
  assert before == "transformers.models.clip.modeling_flax_clip"
  assert np.array_equal(jnp.clip(jnp.arange(3), a_min=1), [1, 1, 2])
  kind = importlib.import_module("transformers.utils").ModelOutput
  out = compat.Output(logits=jnp.ones(3))
  assert isinstance(out, kind) and isinstance(out, compat.Output) and isinstance(out, dict)
  assert len(jax.tree.leaves(out)) == 1 and type(jax.tree.map(jnp.sin, out)) is compat.Output
  compat.uninstall()
  assert not isinstance(out, kind) and out.__class__ is compat.Output
  assert compat.FlaxCLIPTextModel.__module__ == "zoo.compat.clip"
  assert not hasattr(importlib.import_module("transformers"), "FlaxCLIPTextModel")
  assert "transformers.models.clip.modeling_flax_clip" not in sys.modules


def test_every_model_has_its_module_beside_it():
  for file in FILES:
    names = names_in(file)
    for name in names:
      if not name.endswith(("Module", "PreTrainedModel")):
        assert f"{name.removesuffix('Model')}Module" in names or f"{name}Module" in names, name


def test_without_transformers_there_is_a_module_of_ours():
  program = """
    import sys

    class Nothing:
      def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "transformers":
          raise ModuleNotFoundError(name, name=name)

    sys.meta_path.insert(0, Nothing())
    import zoo.compat
    assert "transformers" not in sys.modules
    zoo.compat.install()
    from transformers import FlaxBertModel, FlaxPreTrainedModel
    from transformers.modeling_flax_utils import FlaxPreTrainedModel as same
    from transformers.models.clip.modeling_flax_clip import FlaxCLIPVisionModule
    import transformers
    assert same is FlaxPreTrainedModel and FlaxBertModel.config_class is zoo.compat.Config
    try:
      transformers.BertModel
    except AttributeError as error:
      assert "transformers is not installed" in str(error) and "BertModel is none of them" in str(error)
    else:
      raise AssertionError
    zoo.compat.uninstall()
    assert "transformers" not in sys.modules
  """
  subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=300)
