"""`tsv:FOLDER`, `tsv:data/*.tsv`: tab-separated tables with a header line, UTF-8."""

from zoo.data.sources.delimited import Delimited, open_delimited

ENDINGS = (".tsv", ".tab")


def tsv(where: str, split: str, data_dir: str | None = None) -> Delimited:
  """Opens .tsv files. Each example: column -> str; an empty cell is "".

  Args:
    where: files, and options of `zoo.data.sources.delimited`: `rows.tsv?columns=text,label&encoding=cp1252`.
    split: in TFDS's split syntax.
    data_dir: base folder of relative paths.
  """
  return open_delimited("tsv", ENDINGS, "\t", where, split, data_dir)
