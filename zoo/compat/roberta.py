"""The old classes of RoBERTa and XLM-R: transformers 4, modeling_flax_roberta.py and modeling_flax_xlm_roberta.py."""

from zoo.compat.bert import HEADS, FlaxBertModule, FlaxBertPreTrainedModel, heads, text_arguments
from zoo.compat.causal import causal_text
from zoo.compat.config_classes import ConfigClass


def run_of(**names):
  """Runs the model -> outputs under old names. Old positions count from pad_token_id + 1."""

  def run(model, inputs, train):
    options = {name: value for name, value in inputs.items() if name not in ("tokens", "positions")}
    positions = inputs["positions"]
    options["positions"] = None if positions is None else positions - model.positions.offset
    out = model(inputs["tokens"], **options, train=train)
    return {theirs: out[ours] for theirs, ours in names.items()}

  return run


class FlaxRobertaModule(FlaxBertModule):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim], without it if not add_pooling_layer."""

  FAMILY, LEARNS_PAD = "roberta", False
  run = staticmethod(run_of(last_hidden_state="hidden", pooler_output="pooled"))

  @classmethod
  def adjusted(cls, sizes, entries):
    return sizes | {"pooler": True}  # Heads do not use it.


class FlaxRobertaPreTrainedModel(FlaxBertPreTrainedModel):
  """RoBERTa's base class; called as BERT's, position_ids count from pad_token_id + 1."""

  config_class, base_model_prefix, module_class = ConfigClass("RobertaConfig"), "roberta", FlaxRobertaModule


class FlaxRobertaModel(FlaxRobertaPreTrainedModel):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim]."""


class FlaxXLMRobertaModule(FlaxRobertaModule):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim], without it if not add_pooling_layer."""


class FlaxXLMRobertaPreTrainedModel(FlaxRobertaPreTrainedModel):
  """XLM-RoBERTa's base class; called as RoBERTa's."""

  config_class, base_model_prefix = ConfigClass("XLMRobertaConfig"), "xlm-roberta"
  module_class = FlaxXLMRobertaModule


class FlaxXLMRobertaModel(FlaxXLMRobertaPreTrainedModel):
  """-> last_hidden_state [batch, length, dim], pooler_output [batch, dim]."""


globals().update(
  {
    **causal_text(FlaxRobertaModule, FlaxRobertaPreTrainedModel, "FlaxRoberta", "RobertaForCausalLM"),
    **causal_text(FlaxXLMRobertaModule, FlaxXLMRobertaPreTrainedModel, "FlaxXLMRoberta", "XLMRobertaForCausalLM"),
    **heads(FlaxRobertaModule, FlaxRobertaPreTrainedModel, "FlaxRoberta", HEADS, run_of, arguments=text_arguments),
    **heads(
      FlaxXLMRobertaModule, FlaxXLMRobertaPreTrainedModel, "FlaxXLMRoberta", HEADS, run_of, arguments=text_arguments
    ),
  }
)
