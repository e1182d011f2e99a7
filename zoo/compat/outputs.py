"""Outputs of old models: accessible by name, index or key."""

import jax

OPTIONAL = frozenset(
  """hidden_states attentions past_key_values pooler_output cross_attentions encoder_hidden_states encoder_attentions
  encoder_last_hidden_state decoder_hidden_states decoder_attentions""".split()
)  # None if not requested.
# These come after the main outputs, in old order.
ORDER = """past_key_values hidden_states decoder_hidden_states attentions decoder_attentions cross_attentions
encoder_last_hidden_state encoder_hidden_states encoder_attentions text_model_output vision_model_output""".split()


class Output(dict):
  """Outputs by name, `out.logits` or `out["logits"]`, and by index, `out[0]` or `out[:2]`; a pytree.

  >>> out = Output(logits=1, hidden_states=(2, 3))
  >>> out.logits, out["logits"], out[0], out[:2], out.attentions
  (1, 1, 1, (1, (2, 3)), None)
  >>> out.replace(logits=4).logits
  4
  """

  instance_of = None  # A further class for `isinstance`, set by `install`.
  __class__ = property(lambda self: type(self).instance_of or type(self))

  def __getitem__(self, key):
    return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

  def __getattr__(self, name):
    if name in self:
      return self[name]
    if name in OPTIONAL:
      return None
    raise AttributeError(f"This output has no {name}. It has: {', '.join(self)}.")

  def to_tuple(self):
    """The values as a tuple, including nested outputs."""
    return tuple(value.to_tuple() if isinstance(value, Output) else value for value in self.values())

  def replace(self, **changes):
    """A copy with other values; new entries come last."""
    return Output({**self, **changes})


def ordered(out: dict) -> dict:
  """Sorts entries in the order of old outputs."""
  return {name: out[name] for name in sorted(out, key=lambda name: ORDER.index(name) + 1 if name in ORDER else 0)}


def _with_keys(out):
  return [(jax.tree_util.DictKey(name), value) for name, value in out.items()], tuple(out)


jax.tree_util.register_pytree_with_keys(Output, _with_keys, lambda names, values: Output(zip(names, values)))
