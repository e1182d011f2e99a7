import importlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zoo import compat
from zoo.compat.auto import MODELS
from zoo.compat.families import FILES, names_in, old_names
from zoo.compat.stand_in import NAMES


@pytest.fixture
def installed():
  pytest.importorskip("transformers")
  compat.install()
  yield
  compat.uninstall()


def test_old_imports_find_our_classes_until_they_are_taken_back(installed):
  before = compat.FlaxCLIPTextModel.__module__
  for name in ("bart", "marian", "mt5", "t5"):  # Training scripts look for it in the file of the model's class.
    shift = importlib.import_module(f"transformers.models.{name}.modeling_flax_{name}").shift_tokens_right
    assert shift(np.array([[3, 4, -100, -100]]), 0, 2).tolist() == [[2, 3, 4, 0]]
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
    import tempfile

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
    assert same is FlaxPreTrainedModel and issubclass(FlaxBertModel.config_class, zoo.compat.Config)
    from transformers import AutoConfig, BertConfig, CLIPTextConfig, PretrainedConfig
    from transformers.models.bert.configuration_bert import BertConfig as same
    sizes = dict(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=5)
    config = BertConfig(**sizes, intermediate_size=3, num_labels=3)
    model = transformers.FlaxBertForSequenceClassification(config)
    assert same is BertConfig and model.params["classifier"]["bias"].shape == (3,)
    assert transformers.FLAX_MODEL_MAPPING[BertConfig] is FlaxBertModel
    with tempfile.TemporaryDirectory() as folder:
      config.save_pretrained(folder)
      again = AutoConfig.from_pretrained(folder)
      assert type(again) is BertConfig and again.hidden_size == 4 and again.model_type == "bert"
    messages = {
      "from transformers import FlaxBertModle": "it has no FlaxBertModle. Did you mean 'FlaxBertModel'?",
      "from transformers import BertModel": "it has no BertModel. Did you mean 'FlaxBertModel'?",
      "from transformers import AutoTokenizer": "zoo.load_tokenizer(folder) reads",
      "from transformers import BertTokenizerFast": "zoo.load_tokenizer(folder) reads",
      "from transformers import CLIPProcessor": "zoo.load_processor(folder) reads",
      "from transformers import ViTImageProcessorFast": "zoo.load_processor(folder) reads",
      "from transformers import pipeline": "it has no pipeline. For everything else: pip install transformers.",
      "from transformers.models.bert import BertModel": "it has no models.bert.BertModel.",
      "import transformers.generation.utils": "it has no generation.",
    }
    for line, message in messages.items():
      try:
        exec(line)
      except ImportError as error:
        assert str(error).startswith("transformers is not installed, and zoo") and message in str(error), str(error)
      else:
        raise AssertionError(line)
    assert not hasattr(transformers, "BertModel")
    try:
      transformers.BertModel
    except AttributeError as error:
      assert "Did you mean 'FlaxBertModel'?" in str(error)
    finders = len(sys.meta_path)
    zoo.compat.uninstall()
    assert "transformers" not in sys.modules and len(sys.meta_path) == finders - 1
    try:
      import transformers.models.bert
    except ImportError as error:
      assert "stand-in" not in str(error)
  """
  subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=300)


def test_the_stand_in_has_the_config_class_of_every_old_class():
  models = [kind for kind in old_names().values() if isinstance(kind, type) and hasattr(kind, "base_model_prefix")]
  names = {vars(base)["config_class"].name for kind in models for base in kind.__mro__ if "config_class" in vars(base)}
  assert len(names) > 20 and names - {""} == NAMES.keys()
  for _, kind in NAMES.values():
    assert kind in MODELS or kind in ("clip_text_model", "clip_vision_model")
