"""T5's old encoder: transformers 4, src/transformers/models/t5/modeling_flax_t5.py."""

from typing import Any

from zoo.compat.model import FlaxModel
from zoo.compat.module import Call, token_inputs
from zoo.compat.outputs import Output


def _arguments(
  input_ids, attention_mask=None, output_attentions=False, output_hidden_states=False, return_dict=True,
  deterministic=True,
):  # fmt: skip
  inputs = token_inputs(input_ids, attention_mask, None)
  return Call(inputs, deterministic, output_attentions, output_hidden_states, return_dict)


def _run(model, inputs, train):
  return {"last_hidden_state": model.encode(inputs["tokens"], valid=inputs["valid"], train=train)}


class FlaxT5EncoderModel(FlaxModel):
  """-> last_hidden_state [batch, length, d_model], normed, as the last of hidden_states is."""

  FAMILY, HEAD, TOWERS, LAST_IS_NORMED = "t5", "encoder", {"": "encoder"}, True
  arguments, run = staticmethod(_arguments), staticmethod(_run)

  def __call__(
    self,
    input_ids: Any,
    attention_mask: Any = None,
    output_attentions: bool | None = None,
    output_hidden_states: bool | None = None,
    return_dict: bool | None = None,
    train: bool = False,
    params: Any = None,
    dropout_rng: Any = None,
  ) -> Output:
    """int32 input_ids [batch, length], attention_mask of 0 and 1; the order is another than that of CLIP and BERT."""
    flags = (output_attentions, output_hidden_states, return_dict, not train)
    return self._call(_arguments(input_ids, attention_mask, *flags), params, dropout_rng)

  encode = __call__
