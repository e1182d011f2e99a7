#!/usr/bin/env bash
# An Arrow IPC stream that ends between two record batches, as a copy that was cut off may, is read as a whole one:
# pyarrow 22.0.0 and 25.0.0 give fewer rows and no error, from open_stream as well as from a memory map. The end
# marker of eight bytes is not asked for. The same cut in the IPC *file* format, which has a footer, is refused.
# Seen: 1,000 rows in 10 batches; the stream cut after 6 batches: 600 rows; the file format cut there: ArrowInvalid.
# Streams are what datasets' save_to_disk writes (data-00000-of-00001.arrow): a data set that was not copied whole
# trains on part of its rows. The number of rows in dataset_info.json is what tells.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/cut.py" <<'PYTHON'
import sys

import pyarrow as pa

table = pa.table({"x": list(range(1000))})
batches = table.to_batches(max_chunksize=100)


def written(writer_of):
  """The bytes of ten batches, and where the sixth ends."""
  sink = pa.BufferOutputStream()
  with writer_of(sink, table.schema) as writer:
    for number, batch in enumerate(batches, 1):
      writer.write_batch(batch)
      if number == 6:
        end = sink.tell()
  return sink.getvalue().to_pybytes(), end


outcomes = []
for name, writer_of, reader_of in (
  ("stream", pa.ipc.new_stream, pa.ipc.open_stream),
  ("file", pa.ipc.new_file, pa.ipc.open_file),
):
  content, end = written(writer_of)
  assert reader_of(pa.py_buffer(content)).read_all().num_rows == 1000
  try:
    outcome = f"{reader_of(pa.py_buffer(content[:end])).read_all().num_rows} rows"
  except pa.ArrowInvalid:
    outcome = "ArrowInvalid"
  print(f"pyarrow {pa.__version__}: {name} format, {end} of {len(content)} bytes: {outcome}")
  outcomes.append(outcome)
sys.exit(outcomes != ["600 rows", "ArrowInvalid"])
PYTHON

for requirement in pyarrow==22.0.0 pyarrow==25.0.0; do
  python3 -m venv "$folder/$requirement"
  "$folder/$requirement/bin/pip" install --quiet --disable-pip-version-check "$requirement" 2> /dev/null
  "$folder/$requirement/bin/python" "$folder/cut.py"
done
