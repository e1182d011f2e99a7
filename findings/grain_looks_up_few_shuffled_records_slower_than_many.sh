#!/usr/bin/env bash
# Grain's shuffle costs the more for each record the fewer records there are: with grain 0.2.18 and 0.2.15 one lookup in
# MapDataset.range(n).shuffle(seed) takes milliseconds for 2 records, a fraction of one for 200 and microseconds for
# 60,000. The time falls as 1 / n, as if every lookup walked through places that do not exist.
# Seen: 8.6 ms for 2 records, 2.3 for 11, .13 for 200, .026 for 2,000, .010 for 60,000 (x86, one core).
# Who tries a pipeline on a handful of records, in tests or with a few examples, waits for the shuffle and not for the
# data: a batch of 64 drawn from 11 records costs .15 seconds. A permutation by NumPy is free there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat > "$folder/lookups.py" <<'PYTHON'
import importlib.metadata
import sys
import time

import grain

milliseconds = {}
for records in (2, 200, 60_000):
  shuffled = grain.MapDataset.range(records).shuffle(seed=1).repeat()
  shuffled[0]
  start = time.process_time()
  for index in range(300):
    shuffled[index]
  milliseconds[records] = (time.process_time() - start) / 300 * 1e3
shown = ", ".join(f"{count:,} records {cost:.4f} ms" for count, cost in milliseconds.items())
print(f"grain {importlib.metadata.version('grain')}, CPU time of a lookup: {shown}")
sys.exit(milliseconds[2] < 20 * milliseconds[60_000])
PYTHON

for requirement in grain==0.2.15 grain==0.2.18; do
  python3 -m venv "$folder/$requirement"
  "$folder/$requirement/bin/pip" install --quiet --disable-pip-version-check "$requirement" 2> /dev/null
  "$folder/$requirement/bin/python" "$folder/lookups.py"
done
