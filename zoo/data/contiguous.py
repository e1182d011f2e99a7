"""Text whose rows continue across batches, for models with a memory: `tokens`, `valid`, `continues`."""

from collections.abc import Mapping

import grain
import numpy as np

from zoo.data.language import Language, language
from zoo.data.pipeline import Example, Records


def contiguous(
  source: str,
  split: str = "train",
  *,
  data_dir: str | None = None,
  tokenizer: str = "gpt2",
  max_length: int = 1024,
  text_field: str | None = None,
  cache: bool = True,
  bad_records: str | Mapping = "stop",
) -> "Contiguous":
  """The chunks of `language`, ordered so that row i of batch k + 1 continues row i of batch k.

  Each row reads the whole stream from a place of its own, all of them equally far apart: a chunk's turn comes once in
  each row, and once in an epoch in some row. Batch k is a function of seed, batch size and k alone, as of any data.

  Args: as of `zoo.data.language.language`.

  Each example: as in `language`, and `continues`, bool []: whether it continues the previous one in its row;
  the first chunk of the stream does not. `info`: as in `language`.
  """
  return Contiguous(
    language(
      source, split, data_dir=data_dir, tokenizer=tokenizer, max_length=max_length, text_field=text_field, cache=cache,
      bad_records=bad_records,
    )
  )  # fmt: skip


class Contiguous(Records):
  """See `contiguous`."""

  continuing = True

  def __init__(self, chunks: Language):
    self.chunks, self.info, self.bad, self.policy = chunks, chunks.info, chunks.bad, chunks.policy

  def __len__(self) -> int:
    return len(self.chunks)

  def example(self, index: int, rng: np.random.Generator | None = None) -> Example:
    return {**self.chunks.example(index), "continues": np.asarray(index != 0)}

  def order(self, seed: int, shuffle: bool, length: int, batch_size: int = 1) -> grain.MapDataset:
    """As in `Records`; with shuffle the seed determines the start of the first row."""
    start = int(np.random.default_rng(seed).integers(len(self))) if shuffle else 0

    def chunk(position: int) -> int:
      step, row = divmod(position, batch_size)
      return (start + row * len(self) // batch_size + step) % len(self)

    return grain.MapDataset.range(length).seed(seed).map(chunk)

  def evaluated(self, step: int, batch_size: int) -> np.ndarray:
    """As in `Records`: indices of the records of batch `step`, int [batch_size], of which `len(self)` is padding.

    Each row reads its own part, starting with an empty memory, and no chunk occurs twice.
    """
    steps = -(-len(self) // batch_size)
    return np.minimum(np.arange(batch_size) * steps + step, len(self))
