import pytest

from zoo.errors import UserError
from zoo.tree import check_pattern, matches, nearest, path_names


@pytest.mark.parametrize("pattern", ["kernel", "up/kernel", "(up|down)/kernel", "layer_0/.*", r"layer_\d+/.*", ".*"])
def test_a_pattern_matches_whole_segments_at_the_end(pattern):
  assert matches(pattern, "stack/layer_0/up/kernel")
  assert matches(pattern, "opt_state/0/mu/stack/layer_0/up/kernel")


@pytest.mark.parametrize("pattern", ["ernel", "p/kernel", "up", "stack", "layer_0", "layer_0/kernel"])
def test_a_pattern_matches_no_part_of_a_segment_and_no_beginning(pattern):
  assert not matches(pattern, "stack/layer_0/up/kernel")


def test_paths_are_joined_keys():
  assert path_names({"a": {"b": [1, 2]}, "c": 3}) == ["a/b/0", "a/b/1", "c"]


def test_the_nearest_paths_are_told():
  names = ["head/kernel", "image/embed/embedding", "stack/layer_0/up/kernel", "stack/layer_0/down/kernel"]
  assert nearest("upp/kernel", names)[0] == "stack/layer_0/up/kernel"
  assert nearest("embedding", names, 1) == ["image/embed/embedding"]
  with pytest.raises(UserError, match="sharding: 'hed/kernel' matches no parameter. The nearest: head/kernel, "):
    check_pattern("hed/kernel", names, "sharding")
