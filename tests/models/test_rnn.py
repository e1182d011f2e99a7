import jax
import jax.numpy as jnp
import numpy as np
import pytest

import zoo
from tests.filled import filled
from zoo.errors import UserError
from zoo.generate import decode_step, prefill, speculate

SIZES = dict(vocab_size=23, dim=5, depth=2)
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 0, 0, 0]])
VALID = np.array([[True] * 7, [True] * 4 + [False] * 3])
TORCH = {"elman": ("RNN", {}), "relu": ("RNN", {"nonlinearity": "relu"}), "lstm": ("LSTM", {}), "gru": ("GRU", {})}


def cell_of(name):
  return {"cell": "elman", "activation": "relu"} if name == "relu" else {"cell": name}


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("name", TORCH)
def test_outputs_and_gradients_are_those_of_torch(name, bidirectional):
  torch = pytest.importorskip("torch")
  sizes = dict(SIZES, embed_dim=3, head=None, bidirectional=bidirectional, **cell_of(name))
  model = zoo.build("rnn", **sizes)
  params = filled(model, *model.example())
  cls, options = TORCH[name]
  theirs = getattr(torch.nn, cls)(3, 5, 2, batch_first=True, bidirectional=bidirectional, **options)
  weights = {}  # of torch -> (path of ours, whether it is turned)
  for layer in range(2):
    for direction, suffix in (("forward", ""), ("backward", "_reverse"))[: 1 + bidirectional]:
      for part, short in (("from_input", "ih"), ("from_hidden", "hh")):
        for kind, long in (("kernel", "weight"), ("bias", "bias")):
          weights[f"{long}_{short}_l{layer}{suffix}"] = (f"layer_{layer}", direction, part, kind)

  def as_theirs(stack, path):
    array = stack
    for key in path:
      array = array[key]
    array = np.asarray(array)
    return array.reshape(len(array), -1).T if path[-1] == "kernel" else array.reshape(-1)

  theirs.load_state_dict({name: torch.tensor(as_theirs(params["stack"], path)) for name, path in weights.items()})
  slopes = np.random.default_rng(1).standard_normal((2, 7, 5 * (1 + bidirectional))).astype(np.float32)
  inputs = torch.tensor(np.asarray(params["embed"]["embedding"])[TOKENS], requires_grad=True)
  pack = torch.nn.utils.rnn.pack_padded_sequence(inputs, [7, 4], batch_first=True)
  hidden = torch.nn.utils.rnn.pad_packed_sequence(theirs(pack)[0], batch_first=True)[0]
  (hidden * torch.tensor(slopes)).sum().backward()

  def combined(params):
    out = model.apply({"params": params}, TOKENS, valid=VALID)["hidden"]
    return (out * slopes).sum(), out

  grads, out = jax.jit(jax.grad(combined, has_aux=True))(params)
  np.testing.assert_allclose(out, hidden.detach(), rtol=0, atol=1e-6)
  expected = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
  for key, path in weights.items():
    np.testing.assert_allclose(as_theirs(grads["stack"], path), expected[key], rtol=0, atol=1e-5)
  of_inputs = np.zeros((23, 3), np.float32)
  np.add.at(of_inputs, TOKENS, inputs.grad.numpy())
  np.testing.assert_allclose(grads["embed"]["embedding"], of_inputs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TORCH)
def test_prefill_and_steps_give_the_logits_of_the_full_pass(name):
  model = zoo.build("rnn", **SIZES, **cell_of(name))
  params = filled(model, *model.example())
  full = model.apply({"params": params}, TOKENS)
  logits, positions, state = prefill(model, params, TOKENS[:, :4], np.ones((2, 4), bool), 3)
  step = jax.jit(lambda *args: decode_step(model, params, *args))
  for i in range(4, 7):
    np.testing.assert_allclose(logits, full[:, i - 1], rtol=0, atol=1e-5)
    logits, state = step(state, TOKENS[:, i], positions)
    positions = positions + 1
  np.testing.assert_allclose(logits, full[:, 6], rtol=0, atol=1e-5)
  # What a step needs does not grow with what was read.
  assert {array.shape for array in jax.tree.leaves(state)} == {(2, 5)}


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_prompts_continue_as_they_would_alone(side):
  model = zoo.build("rnn", **SIZES, scan=True)
  params = filled(model, *model.example())
  tokens, valid = (np.roll(array, 3, axis=1) if side == "left" else array for array in (TOKENS[1:], VALID[1:]))
  for options in ({}, {"num_beams": 2}):
    alone = zoo.generate(model, params, TOKENS[1:, :4], max_new_tokens=5, **options)[0, 4:]
    out = zoo.generate(model, params, tokens, valid=valid, max_new_tokens=5, **options)[0, 7:]
    np.testing.assert_array_equal(out, alone)


def test_a_classifier_reads_what_each_direction_has_read_at_its_end():
  model = zoo.build("rnn", **SIZES, head="classify", num_classes=3, bidirectional=True, cell="gru")
  params = filled(model, *model.example())
  call = jax.jit(lambda tokens, valid: model.apply({"params": params}, tokens, valid=valid)["logits"])
  padded = np.pad(TOKENS, ((0, 0), (2, 1))), np.pad(VALID, ((0, 0), (2, 1)))
  np.testing.assert_allclose(call(*padded), call(TOKENS, VALID), rtol=0, atol=1e-6)
  logits = np.asarray(call(TOKENS, VALID))
  for row, end in ((0, 6), (1, 3)):
    for place in (0, end):  # The token that one direction reads first and the other last counts for both.
      changed = TOKENS.copy()
      changed[row, place] = 22
      assert (abs(call(changed, VALID) - logits)[row] > 1e-3).any()


def test_speculation_is_refused():
  model = zoo.build("rnn", **SIZES)
  params = filled(model, *model.example())
  with pytest.raises(UserError, match=r"the state of a recurrent network already includes\. Use generate\."):
    speculate(model, params, model, params, jnp.asarray(TOKENS), max_new_tokens=3)


@pytest.mark.parametrize(
  "sizes, message",
  [
    ({"cell": "elmo"}, "cell is 'elmo'. It may be: elman, lstm, gru."),
    ({"cell": "gru", "activation": "relu"}, "activation is 'relu', and the cell 'gru' has its own."),
    ({"cell": "elman", "activation": "gelu"}, "activation is 'gelu'. It may be: tanh, relu."),
    ({"bidirectional": True}, "A bidirectional network has read the next token already."),
    ({"tied": True, "embed_dim": 3}, "A tied output layer needs hidden states as wide as the embedding: 5 and 3."),
    ({"scan": True, "embed_dim": 3}, "scan needs layers of one shape"),
    ({"drop_path": 0.1}, "drop_path is 0.1, and an rnn has no residual branches to drop."),
    ({"embed_dim": 0}, "embed_dim is 0. It must be at least 1."),
  ],
)
def test_what_cannot_be_built_is_refused_in_one_line(sizes, message):
  with pytest.raises(UserError, match=rf"^rnn: {message}"):
    zoo.build("rnn", **SIZES, **sizes)
