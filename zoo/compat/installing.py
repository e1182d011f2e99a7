"""Our classes where `from transformers import Flax...` looks: with transformers 5, with 4, or with none."""

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

_undo: list[tuple[str, Any, Any, Any]] = []  # What `install` changed, newest last.
_ABSENT = object()
# Files that old code imports from, beside those of the families: names -> what they are.
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

  They are then found in the files of transformers too (`transformers.models.clip.modeling_flax_clip`), and say that
  they are from there, so that pipelines of diffusers write folders that others read. Call it before anything imports
  those names. A second call changes nothing. Without transformers there is a module `transformers` of these and of
  their config classes; what else is imported from it ends in an ImportError that says what to use.

  Where JAX no longer has them, `jax.numpy.clip` gets its keywords a_min and a_max back too: the safety checker of
  diffusers' pipelines says them. Outputs are instances of the `ModelOutput` of transformers, if that is there.

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
    # What transformers 4 has for all families stays as it is: families that are not ours are made of it.
    for name, value in names.items() if file in FILES or ("module", None, file, None) in _undo else ():
      _set(module, name, value)
      if file == AUTO:
        _set(top, name, value)
      # transformers 4 looks in the folder of a model; so does what was written for it.
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
    # Old code asks whether outputs are of the class that theirs are of. Ours stay dicts, which JAX knows as trees.
    kind = importlib.import_module("transformers.utils").ModelOutput
    _set(outputs.Output, "instance_of", kind)
  _set(jnp, "clip", clip_with_old_keywords())


def clip_with_old_keywords() -> Any:
  """`jax.numpy.clip`, with the keywords a_min and a_max that it had before JAX 0.10 too."""
  clip = jnp.clip
  if "a_min" in inspect.signature(clip).parameters:
    return clip

  @functools.wraps(clip)
  def old_clip(arr=None, /, min=None, max=None, *, a=None, a_min=None, a_max=None):
    return clip(a if arr is None else arr, a_min if min is None else min, a_max if max is None else max)

  return old_clip


def uninstall() -> None:
  """Takes back what `install` did. Whoever imported a class keeps it."""
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
  """The module `transformers`, as it stays."""
  top = _module("transformers")
  if not isinstance(top, StandIn):
    # This file of theirs makes the whole module anew when it is first imported: our names would go with the old one.
    with contextlib.suppress(ImportError):
      importlib.import_module("transformers.processing_utils")
  return sys.modules["transformers"]


def _set(holder: Any, name: str, value: Any) -> None:
  before = vars(holder).get(name, _ABSENT)
  if before is not value:
    _undo.append(("name", holder, name, before))
    setattr(holder, name, value)


def _module(name: str) -> ModuleType:
  """A module of transformers, made if it is not there."""
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
    # Old files that do not start with this JAX give way to ours too.
  module = StandIn(name) if not parent else ModuleType(name)
  module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
  module.__path__ = []
  sys.modules[name] = module
  _undo.append(("module", None, name, None))
  if parent:
    _set(sys.modules[parent], last, module)
  return module
