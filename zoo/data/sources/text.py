"""`text:FOLDER`, `text:notes/**/*.txt`: a document a file, as `{"text", "path"}`."""

from typing import Any

from zoo.data.bad_records import BadRecord
from zoo.data.sources import Source, read_file, stamp
from zoo.data.sources.splits import by_hash, files_of_split, folder_of_split, take
from zoo.errors import UserError

ENDINGS = (".txt", ".md")
LINES = (".jsonl", ".ndjson")
ONE = "A file is one document. Give several files, or JSON lines (jsonl:FILE), which have a document a line."


def text(where: str, split: str, data_dir: str | None = None) -> "TextFiles":
  """Opens the .txt and .md files of a folder and the folders in it, or whatever files a pattern matches."""

  def files(name: str) -> list[str]:
    folder, listed = files_of_split(where, name, data_dir, (*ENDINGS, *LINES))
    texts = [file for file in listed if not file.lower().endswith(LINES)]
    if not texts or len(texts) < len(listed) and folder_of_split(where, name, data_dir)[1]:  # A pattern asks for them.
      lines = next(file for file in listed if file not in texts)
      raise UserError(f"text:{where} holds JSON lines, {folder / lines}. Write jsonl:{where}, a document a line.")
    return [str(folder / file) for file in by_hash(texts)]

  chosen = [file for part in take(split, files, f"text:{where}", ONE) for file in part]
  return TextFiles(f"text:{where}[{split}]", chosen)


class TextFiles(Source):
  """Files of UTF-8 text."""

  def __init__(self, name: str, files: list[str]):
    self.name, self.files, self.class_names = name, files, {}
    self.fingerprint = stamp(files)

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> dict[str, Any]:
    path = self.files[index]
    try:
      return {"text": read_file(path).decode("utf-8-sig"), "path": path}
    except UnicodeDecodeError as error:
      raise BadRecord(
        f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Convert or remove it."
      ) from error

  def where(self, index: int) -> str:
    return self.files[index]
