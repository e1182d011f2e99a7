import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluate.toys import Toy
from zoo.errors import UserError
from zoo.evaluate import prompts
from zoo.evaluate.zero_shot import zero_shot

NAMES = ["r", "g", "b", "k", "w", "y"]


class Letters:
  """A text is the sum of the vectors of its bytes, an image its mean colour; both made units."""

  max_length = 9
  encode_image = encode_text = True

  def apply(self, variables, inputs, *, valid=None, method):
    if method == "encode_image":
      vector = inputs.mean((1, 2))
    else:
      vector = (variables["params"]["letters"][inputs] * valid[..., None]).sum(1)
    return vector / jnp.linalg.norm(vector, axis=-1, keepdims=True)


def letters(**vectors):
  table = np.zeros((262, 3), np.float32)
  for letter, vector in vectors.items():
    table[ord(letter)] = vector
  return {"letters": jnp.array(table)}


def images(vectors, label, **info):
  vectors = np.asarray(vectors, np.float32)
  image = np.broadcast_to(vectors[:, None, None], (len(vectors), 2, 2, 3)).copy()
  return Toy(image=image, label=np.asarray(label, np.int32), info=info)


KNOWN = letters(r=[1, 0, 0], g=[0, 1, 0], b=[0, 0, 1], k=[-1, -1, -1], w=[1, 1, 1], y=[1, 1, 0])
DATA = images([[1, 0.1, 0], [0, 1, 0], [0.1, 0, 1], [-1, -1, -1], [1, 1, 1], [0, 0, 1]], range(6), class_names=NAMES)


NAMED = images([[0, 1, 0]], [0], class_names=["r", "g"])


@pytest.mark.parametrize("batch_size", [1, 4, 6, 16])
def test_an_image_belongs_to_the_class_whose_name_is_nearest(batch_size):
  metrics = zero_shot(Letters(), data=DATA, templates=["{}"], tokenizer="bytes", batch_size=batch_size)(KNOWN)
  assert metrics["top1"] == 5 / 6  # the last image is blue and called yellow
  assert metrics["top5"] == 1.0
  assert metrics["chance/top1"] == pytest.approx(1 / 6)
  assert metrics["chance/top5"] == pytest.approx(5 / 6)


def test_templates_are_averaged_as_units():
  # "g" and "mg" point to (0, 1, 0) and (3, 1, 0): the mean of the units points to (.95, 1.32, 0), nearer to green than
  # to red; the mean of the vectors themselves, (1.5, 1, 0), would be nearer to red.
  params = letters(r=[1, 0, 0], g=[0, 1, 0], m=[3, 0, 0], n=[0, 0, 50])
  data = images([[0.8, 1, 0], [1, 0, 0]], [0, 1])
  options = {"class_names": ["g", "r"], "tokenizer": "bytes"}
  assert zero_shot(Letters(), data=data, templates=["{}", "m{}"], **options)(params)["top1"] == 1.0
  units = np.array([[0, 1, 0], [3, 1, 0] / np.sqrt(10)]).sum(0)
  assert units[1] > units[0]
  # A template without the class name counts as one of three, whatever its norm.
  assert zero_shot(Letters(), data=data, templates=["{}", "m{}", "n{}"], **options)(params)["top1"] == 1.0


def test_names_may_come_from_the_config_in_the_order_of_the_labels():
  options = {"data": images([[0, 1, 0]], [1]), "templates": "{}", "tokenizer": "bytes"}
  assert zero_shot(Letters(), class_names=["r", "g"], **options)(KNOWN)["top1"] == 1.0
  assert zero_shot(Letters(), class_names=["g", "r"], **options)(KNOWN)["top1"] == 0.0


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"class_names": None}, "the data have no class names. Give them as class_names"),
    ({"class_names": ["r"], "templates": ["a photo"]}, "the template 'a photo' must be a str with {} where the name"),
    ({"class_names": ["r"], "templates": []}, "templates is empty. Give one, e.g. '{}', where the name"),
    ({"class_names": ["r", 2]}, "class_names has 2, not a str"),
    (
      {"class_names": ["r"], "templates": ["of {}", "a photo of {}"], "tokenizer": "bytes"},
      "'a photo of {}' with 'r' has more than the 9 tokens",
    ),
    ({"class_names": ["r", "g", "b"], "data": NAMED}, "class_names has 3 names, the data have 2 classes: 'r, g'"),
    ({"class_names": ["g", "b"], "data": NAMED}, "label 1 is 'g' in the data, 'b' in class_names"),
    ({"class_names": ["r"], "tokenizer": "byte"}, "There is no tokenizer 'byte'. Did you mean 'bytes'?"),
  ],
)
def test_mistakes_are_told(options, message):
  with pytest.raises(UserError) as error:
    zero_shot(Letters(), **{"data": images([[0, 1, 0]], [0]), **options})
  assert message in str(error.value)


def test_a_label_without_a_name_is_refused():
  with pytest.raises(UserError, match="the data have label 1 but only 1 class names, for 0 to 0"):
    zero_shot(Letters(), data=images([[0, 1, 0]], [1]), class_names=["r"], templates="{}", tokenizer="bytes")(KNOWN)


def test_the_model_is_compiled_once(monkeypatch):
  traced = []
  original = Letters.apply
  monkeypatch.setattr(Letters, "apply", lambda *args, **options: traced.append(options) or original(*args, **options))
  evaluate = zero_shot(Letters(), data=DATA, templates=["{}"], tokenizer="bytes", batch_size=4)
  evaluate(KNOWN)
  evaluate(jax.tree.map(lambda x: 2 * x, KNOWN))
  assert len(traced) == 2  # images and texts


def test_names_and_templates_may_be_on_board_or_in_a_file(tmp_path):
  assert len(prompts.templates("imagenet")) == 80 and all(one.count("{}") == 1 for one in prompts.templates("imagenet"))
  names = prompts.class_names("imagenet")
  assert (len(names), names[0], names[207], names[999]) == (1000, "tench", "Golden Retriever", "toilet paper")
  (tmp_path / "names.txt").write_text("r\n g \n\nb\n", encoding="utf-8")
  assert prompts.class_names(str(tmp_path / "names.txt")) == ["r", "g", "b"]
  with pytest.raises(UserError, match="templates is 'a photo'. It must be a list of texts, imagenet, or a file with"):
    prompts.templates("a photo")


def test_blanks_stand_for_the_underscores_of_folders():
  data = images([[0, 1, 0]], [1], class_names=["r_r", "g_g"])
  assert zero_shot(Letters(), data=data, templates="{}", tokenizer="bytes")(KNOWN)["top1"] == 1.0
  assert (
    zero_shot(Letters(), data=data, templates="{}", tokenizer="bytes")(letters(g=[0, 1, 0], r=[0, 0, 1], _=[0, 0, 99]))[
      "top1"
    ]
    == 1.0
  )
