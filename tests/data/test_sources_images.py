import pytest

from tests.data import toys
from zoo.data.sources import open_source
from zoo.errors import UserError


@pytest.mark.parametrize(
  "content, message",
  [
    ('file,text\na.png,"x\nb.png,y\n', "cannot be read: a quote is never closed"),
    ("file,text,text\na.png,x,y\n", "has the column 'text' twice"),
  ],
)
def test_a_table_of_captions_that_would_lose_rows_or_columns_is_refused(tmp_path, content, message):
  toys.write(tmp_path, {"a.png": toys.png("red"), "b.png": toys.png("red"), "captions.csv": content})
  with pytest.raises(UserError, match=rf"captions\.csv {message}"):
    open_source(f"images:{tmp_path}")
