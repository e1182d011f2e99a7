"""The old names, by the file of transformers that had them: what `zoo.compat` exports and `install` puts there."""

from typing import Any

from zoo.compat import bert, clip, t5
from zoo.compat.pretrained import FlaxPreTrainedModel

# transformers' module -> ours.
FILES = {
  "transformers.models.bert.modeling_flax_bert": bert,
  "transformers.models.clip.modeling_flax_clip": clip,
  "transformers.models.t5.modeling_flax_t5": t5,
}


def names_in(file: str) -> dict[str, Any]:
  """The old names of one file -> our classes."""
  module = FILES[file]
  return {name: x for name, x in vars(module).items()
          if name.startswith("Flax") and getattr(x, "__module__", "") in (module.__name__, file)}  # fmt: skip


def old_names() -> dict[str, Any]:
  """All old names -> our classes."""
  every = {name: x for file in FILES for name, x in names_in(file).items()}
  return {"FlaxPreTrainedModel": FlaxPreTrainedModel, **every}
