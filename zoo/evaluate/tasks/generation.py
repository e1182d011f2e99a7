"""Task: answers or continuations of texts, scored against references or by a user's check."""

from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Task
from zoo.evaluate.tasks.writing import open_writer, section, writes

generation = Task(
  does="answers or continuations of texts, by references or by a function (`--check=FILE.py:FUNCTION`)",
  needs="a model that answers or continues texts",
  fits=writes,
  columns={
    "source": Column(("prompt", "source", "input", "instruction", "question", "text"), "a text"),
    "target": Column(
      ("target", "reference", "completion", "output", "answer", "response"), "what to write", needed=False
    ),
  },
  evaluator="generation",
  section=section(),
  metrics="bleu, chrf, rouge1, rouge2, rougeL (0 to 100), check, tokens; row copy",
  opens=open_writer,
)
