"""Installs our classes as `from transformers import Flax...`: with transformers 5, with 4, or without."""

import contextlib
import functools
import importlib
import importlib.machinery
import inspect
import sys
from types import ModuleType
from typing import Any

import jax.numpy as jnp

from zoo.compat import outputs
from zoo.compat.families import AUTO, FILES, auto_names, functions_in, names_in, old_names
from zoo.compat.pretrained import FlaxPreTrainedModel
from zoo.compat.stand_in import Finder, StandIn, config_names
from zoo.errors import UserError

_undo: list[tuple[str, Any, Any, Any]] = []  # Changes made by `install`, newest last.
_ABSENT = object()
# Further files that old code imports from: names -> objects.
SHARED = {
  AUTO: auto_names(),
  "transformers.modeling_flax_utils": {"FlaxPreTrainedModel": FlaxPreTrainedModel},
  "transformers.modeling_flax_outputs": dict.fromkeys(
    """FlaxBaseModelOutput FlaxBaseModelOutputWithPooling FlaxBaseModelOutputWithPast FlaxSeq2SeqModelOutput
    FlaxBaseModelOutputWithPastAndCrossAttentions FlaxBaseModelOutputWithPoolingAndCrossAttentions
    FlaxCausalLMOutputWithCrossAttentions FlaxMaskedLMOutput FlaxMultipleChoiceModelOutput
    FlaxNextSentencePredictorOutput FlaxQuestionAnsweringModelOutput FlaxSeq2SeqLMOutput
    FlaxSeq2SeqQuestionAnsweringModelOutput FlaxSeq2SeqSequenceClassifierOutput FlaxSequenceClassifierOutput
    FlaxTokenClassifierOutput""".split(),
    outputs.Output,
  ),
}


def install() -> None:
  """Puts the classes of `zoo.compat` where `from transformers import Flax...` finds them, until `uninstall`.

  They are also in the files of transformers (`transformers.models.clip.modeling_flax_clip`), and their `__module__` is
  set accordingly, so that pipelines of diffusers write folders that others can read. Call it before anything imports
  those names. A second call has no effect. Without transformers a module `transformers` is created with these and
  their config classes; other imports from it raise an ImportError that names the alternative.

  If JAX no longer has them, `jax.numpy.clip` gets its keywords a_min and a_max back too, for the safety checker of
  diffusers' pipelines. Outputs are instances of transformers' `ModelOutput`, if it is installed.

  >>> import zoo.compat
  >>> zoo.compat.install()
  >>> from transformers import FlaxCLIPTextModel
  >>> FlaxCLIPTextModel is zoo.compat.FlaxCLIPTextModel, FlaxCLIPTextModel.__module__
  (True, 'transformers.models.clip.modeling_flax_clip')
  >>> zoo.compat.uninstall()
  """
  if _undo:
    return
  try:
    _install()
  except BaseException:
    uninstall()
    raise


def _install() -> None:
  top = _transformers()
  for name, value in old_names().items():
    if name not in SHARED[AUTO]:
      _set(top, name, value)
  for file, names in {**{file: names_in(file) | functions_in(file) for file in FILES}, **SHARED}.items():
    module = _module(file)
    # Shared modules of transformers 4 are kept: other families use them.
    for name, value in names.items() if file in FILES or ("module", None, file, None) in _undo else ():
      _set(module, name, value)
      if file == AUTO:
        _set(top, name, value)
      # transformers 4 and code for it look in the model's package.
      _set(_module(file.rpartition(".")[0]), name, value)
      if isinstance(value, type) and value is not outputs.Output:
        _set(value, "__module__", file)
  if isinstance(top, StandIn):
    for file, names in config_names().items():
      for holder in (_module(file), _module(file.rpartition(".")[0]), top):
        for name, value in names.items():
          _set(holder, name, value)
    finder = Finder()
    sys.meta_path.insert(0, finder)
    _undo.append(("finder", finder, "", None))
  else:
    # Old code checks the class of outputs. Ours stay dicts, which are pytrees.
    kind = importlib.import_module("transformers.utils").ModelOutput
    _set(outputs.Output, "instance_of", kind)
  _set(jnp, "clip", clip_with_old_keywords())


def clip_with_old_keywords() -> Any:
  """`jax.numpy.clip` that also takes the keywords a_min and a_max from before JAX 0.10."""
  clip = jnp.clip
  if "a_min" in inspect.signature(clip).parameters:
    return clip

  @functools.wraps(clip)
  def old_clip(arr=None, /, min=None, max=None, *, a=None, a_min=None, a_max=None):
    return clip(a if arr is None else arr, a_min if min is None else min, a_max if max is None else max)

  return old_clip


def uninstall() -> None:
  """Reverts `install`. Classes that were already imported stay valid."""
  while _undo:
    kind, holder, name, before = _undo.pop()
    if kind == "finder":
      sys.meta_path.remove(holder)
    elif kind == "module":
      sys.modules.pop(name, None)
    elif before is _ABSENT:
      delattr(holder, name)
    else:
      setattr(holder, name, before)


def _transformers() -> ModuleType:
  """The final module object of `transformers`."""
  top = _module("transformers")
  if not isinstance(top, StandIn):
    # Importing this file replaces the module object, which would lose our names.
    with contextlib.suppress(ImportError):
      importlib.import_module("transformers.processing_utils")
  return sys.modules["transformers"]


def _set(holder: Any, name: str, value: Any) -> None:
  before = vars(holder).get(name, _ABSENT)
  if before is not value:
    _undo.append(("name", holder, name, before))
    setattr(holder, name, value)


def _module(name: str) -> ModuleType:
  """A module of transformers, created if missing."""
  if name in sys.modules:
    return sys.modules[name]
  parent, _, last = name.rpartition(".")
  if parent:
    _module(parent)
  try:
    return importlib.import_module(name)
  except Exception as error:
    if not parent and not isinstance(error, ModuleNotFoundError):
      raise UserError(f"{name} cannot be imported: {error}. Repair it, or uninstall it.") from error
    # Old files that fail to import with this JAX are replaced too.
  module = StandIn(name) if not parent else ModuleType(name)
  module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
  module.__path__ = []
  sys.modules[name] = module
  _undo.append(("module", None, name, None))
  if parent:
    _set(sys.modules[parent], last, module)
  return module
