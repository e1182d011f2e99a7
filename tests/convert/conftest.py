"""Everything in this folder compares with torch transformers, the extra `parity`."""

import pytest

pytest.importorskip("torch", reason="the references are not installed: pip install 'flax-zoo[parity]'")
