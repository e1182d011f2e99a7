import flax.linen as nn

import zoo
from zoo.layers.attention import Attention
from zoo.layers.parts import replace_modules


class Pair(nn.Module):
  first: nn.Module
  others: tuple
  sizes: tuple = (1, 2)


def test_parts_are_exchanged_wherever_they_are_and_the_rest_stays():
  module = Pair(nn.Dense(3), (nn.LayerNorm(), Pair(nn.Dense(5), (nn.Dense(7),))))
  names = []

  def wider(part, path):
    names.append(path)
    return nn.Dense(2 * part.features) if isinstance(part, nn.Dense) else part

  replaced = replace_modules(module, wider)
  assert (replaced.first.features, replaced.others[1].first.features, replaced.others[1].others[0].features) == (
    6,
    10,
    14,
  )
  assert replaced.others[0] is module.others[0] and replaced.sizes is module.sizes
  assert names == ["", "first", "others/0", "others/1", "others/1/first", "others/1/others/0"]


def test_nothing_is_copied_where_nothing_changes():
  model = zoo.build("bart", vocab_size=11, max_length=8, dim=4, depth=1, num_heads=2)
  assert replace_modules(model, lambda part, path: part) is model
  paths = []
  replace_modules(model, lambda part, path: (paths.append(path), part)[1] if isinstance(part, Attention) else part)
  assert sorted(paths) == [f"{tower}/stack/block/{part}" for tower, part in (
    ("decoder", "attention"), ("decoder", "cross"), ("encoder", "attention"))]  # fmt: skip
