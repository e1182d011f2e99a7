"""Task: translation."""

from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Task
from zoo.evaluate.tasks.writing import open_writer, section, writes

translation = Task(
  does="translations",
  needs="a model that answers or continues texts",
  fits=writes,
  columns={
    "source": Column(("source", "src", "input", "text"), "a text; `translation.en` is an entry of a field"),
    "target": Column(("target", "tgt", "translation", "reference", "output"), "its translation"),
  },
  evaluator="generation",
  section=section(),
  metrics="bleu, chrf (0 to 100), tokens; row copy",
  options=lambda subject: {"measures": ["bleu", "chrf"]},
  opens=open_writer,
)
