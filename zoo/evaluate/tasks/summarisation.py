"""Task: summarisation."""

from zoo.evaluate.columns import Column
from zoo.evaluate.tasks import Task
from zoo.evaluate.tasks.writing import open_writer, section, stated_prefix, writes

summarisation = Task(
  does="summaries",
  needs="a model that answers or continues texts",
  fits=writes,
  columns={
    "source": Column(("document", "article", "source", "text", "dialogue", "body", "maintext", "input"), "a text"),
    "target": Column(("summary", "highlights", "target", "abstract", "headline", "title", "output"), "its summary"),
  },
  evaluator="generation",
  section=section(stated_prefix("summarization")),
  metrics="rouge1, rouge2, rougeL (0 to 100), tokens; row copy",
  options=lambda subject: {"measures": ["rouge"]},
  opens=open_writer,
)
