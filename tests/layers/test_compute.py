import inspect
from typing import Annotated

import jax.numpy as jnp
import pytest

import zoo
from zoo.build import sizes_of
from zoo.config.registry import lookup, names, parameters_of
from zoo.errors import UserError
from zoo.layers.compute import Compute, computing, resolve
from zoo.layers.stack import stack
from zoo.models.decoder import DecoderOptions
from zoo.saving import COMPUTING


class Wide(Compute):
  width: Annotated[int, 7]


def test_what_is_not_given_has_the_default_of_its_entry():
  options = resolve(Wide, {"dtype": "bfloat16"})
  assert (options.width, options.dropout, options.scan) == (7, 0.0, None)
  assert options.dtype == jnp.bfloat16 and resolve(Wide, {"width": 3}).width == 3


def test_an_option_that_is_not_there_is_no_option_that_is_passed_over():
  with pytest.raises(TypeError, match="There is no option 'widht'. There are: .*width"):
    resolve(Wide, {"widht": 3})


def test_rates_and_dtypes_are_checked_where_they_are_resolved():
  for options, message in (({"dropout": 1.0}, "dropout is 1.0"), ({"drop_path": -0.1}, "drop_path is -0.1")):
    with pytest.raises(ValueError, match=message):
      computing(options)
  with pytest.raises(ValueError, match="dtype is 'int7'"):
    computing({"dtype": "int7"})


def test_stacking_is_what_a_stack_takes():
  *_, stacking = computing({})
  assert {*stacking} < {*inspect.signature(stack).parameters}


@pytest.mark.parametrize("family", names("models"))
def test_every_family_takes_the_options_of_computing_and_they_are_no_part_of_a_model(family):
  parameters = parameters_of(lookup("models", family))
  assert tuple(parameters)[-len(COMPUTING) :] == COMPUTING == tuple(Compute.__annotations__)
  assert {name: parameters[name].default for name in COMPUTING} == {
    **{"dropout": 0.0, "drop_path": 0.0, "dtype": None, "scan": None, "remat": None}
  }


def test_options_that_families_share_are_checked_and_told_as_their_own():
  sizes = dict(vocab_size=23, max_length=11, dim=6, depth=1, num_heads=3, mlp_dim=5)
  model = zoo.build("llama", **sizes, num_kv_heads=1, dropout=0.25)
  shared = {name: sizes_of(model)[name] for name in DecoderOptions.__annotations__}
  assert (shared["num_kv_heads"], shared["head"], shared["dropout"], shared["window"]) == (1, "lm", 0.25, None)
  with pytest.raises(UserError, match="llama takes no 'num_kv_head'. Did you mean 'num_kv_heads'?"):
    zoo.build("llama", **sizes, num_kv_head=1)
  with pytest.raises(UserError, match=r"llama.qk_norm is 1 \(int\). It must be a bool"):
    zoo.build("llama", **sizes, qk_norm=1)
