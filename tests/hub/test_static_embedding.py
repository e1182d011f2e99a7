"""StaticEmbedding of sentence-transformers, and model2vec."""

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import save_file

from tests.hub.test_sentence_encoder import UNIT, write
from zoo.embed import embed
from zoo.errors import UserError

RNG = np.random.default_rng(0)


def static_folder(folder, tensors, *modules):
  backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[UNK]"))
  backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  backend.post_processor = tokenizers.processors.TemplateProcessing("[UNK] $A", special_tokens=[("[UNK]", 0)])
  listed = [{"path": ".", "type": "sentence_transformers.models.StaticEmbedding"}]
  listed += [{"path": f"1_{kind}", "type": f"sentence_transformers.models.{kind}"} for kind in modules]
  write(folder, "modules.json", listed)
  backend.save(str(folder / "tokenizer.json"))
  save_file(tensors, folder / "model.safetensors")
  return folder


def test_static_embeddings_are_the_mean_of_their_tokens_alone(tmp_path):
  table = RNG.normal(size=(4, 3)).astype(np.float32)
  folder = static_folder(tmp_path, {"embedding.weight": table})
  want = np.stack([table[[1, 2, 1]].mean(0), np.zeros(3), table[3]])
  np.testing.assert_allclose(embed(folder, ["a b a", "", "c"]), want, rtol=1e-5, atol=1e-6)
  # model2vec: fewer rows, which tokens share, and a weight of each token.
  weights = np.array([1, 2, 3, 4], np.float32)
  arrays = {"embeddings": table[:2], "mapping": np.array([0, 1, 1, 0]), "weights": weights}
  folder = static_folder(tmp_path, arrays, "Normalize")
  rows = table[[0, 1, 1, 0]] * weights[:, None]
  np.testing.assert_allclose(embed(folder, ["b c"]), UNIT(rows[[2, 3]].mean(0))[None], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "tensors, message",
  [
    ({"weight": np.ones((4, 3), np.float32)}, "holds neither embedding.weight alone nor embeddings. It holds: weight"),
    ({"embedding.weight": np.ones((3, 3), np.float32)}, "the tokenizer has 4 tokens, but the table has 3 vectors"),
    (
      {"embeddings": np.ones((4, 3), np.float32), "mapping": np.array([0, 4])},
      r"mapping .* does not index the 4 rows of embeddings\.",
    ),
    ({"embedding.weight": np.ones((4, 3, 1), np.float32)}, r"the table of vectors is \(4, 3, 1\)"),
  ],
)
def test_a_table_that_does_not_fit_is_refused_in_one_line(tensors, message, tmp_path):
  with pytest.raises(UserError, match=message):
    embed(static_folder(tmp_path, tensors), ["a"])
