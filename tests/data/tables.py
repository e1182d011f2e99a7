"""Tables as pyarrow and datasets write them."""

import json

import pyarrow as pa

from tests.data import toys

FEATURES = {
  "id": {"dtype": "int64", "_type": "Value"},
  "text": {"dtype": "string", "_type": "Value"},
  "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
  "tags": {"feature": {"names": ["O", "B"], "_type": "ClassLabel"}, "_type": "List"},
  "image": {"_type": "Image"},
}


def rows(numbers):
  return [
    {
      "id": i,
      "text": f"é {i}",
      "label": i % 2,
      "tags": [0, 1],
      "answers": {"text": [f"a{i}"], "answer_start": [i]},
      "spans": [{"start": i, "end": i + 1}],
      "image": {"bytes": b"png%d" % i, "path": None},
    }
    for i in numbers
  ]


def table(numbers, described=True):
  made = pa.Table.from_pylist(rows(numbers))
  about = {"huggingface": json.dumps({"info": {"features": FEATURES}})} if described else None
  return made.replace_schema_metadata(about)


def expected(numbers):
  return [{**row, "image": row["image"]["bytes"]} for row in rows(numbers)]


def write_stream(path, made, batch=5):
  path.parent.mkdir(parents=True, exist_ok=True)
  with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, made.schema) as writer:
    writer.write_table(made, max_chunksize=batch)


def save_to_disk(folder, shards):
  """What `Dataset.save_to_disk` leaves behind."""
  names = [f"data-{i:05}-of-{len(shards):05}.arrow" for i in range(len(shards))]
  for name, numbers in zip(names, shards):
    write_stream(folder / name, table(numbers, described=False))
  toys.write(folder, {"state.json": json.dumps({"_data_files": [{"filename": name} for name in names]})})
  toys.write(folder, {"dataset_info.json": json.dumps({"features": FEATURES})})
