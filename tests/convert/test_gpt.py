import pytest

from tests.convert import decoders
from tests.convert.parity import Case, check, to_torch, tokens

SMALL = dict(vocab_size=37, n_positions=19, n_embd=12, n_layer=3, n_head=3)
ODD = dict(
  vocab_size=41, n_positions=11, n_embd=20, n_layer=2, n_head=5, n_inner=17, activation_function="relu",
  layer_norm_epsilon=0.03,
)  # fmt: skip


def case(name, config):
  ids = tokens(config["vocab_size"], 2, 7)
  return Case(
    name, "GPT2LMHeadModel", "GPT2Config", config,
    ours=lambda rng: ((ids(rng),), {}),
    theirs=lambda rng: {"input_ids": to_torch(ids(rng))},
    outputs={"logits": (lambda out: out, lambda out: out.logits)},
    last_is_normed=True,
  )  # fmt: skip


HEADED = {**SMALL, "pad_token_id": 2}
HEADS = {"ForSequenceClassification": {"num_labels": 4}, "ForTokenClassification": {"num_labels": 3}}
HEADS |= {"ForQuestionAnswering": {}, "Model": {}}
CASES = [case("small", SMALL), case("odd", ODD)]
CASES += [decoders.case("small", f"GPT2{cls}", "GPT2Config", {**HEADED, **more}) for cls, more in HEADS.items()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_reference(case, tmp_path):
  check(case, tmp_path)
