"""Task: image-text retrieval."""

from zoo.data.image_text import TEXT_FIELDS
from zoo.evaluate.columns import IMAGE, Column
from zoo.evaluate.tasks import Task, fields

retrieval = Task(
  does="finding texts by images and images by texts",
  needs="a model that compares images and texts",
  fits=lambda kind: kind.does == "compare",
  columns={
    "image": IMAGE,
    "text": Column(TEXT_FIELDS, "a caption, or several"),
    "group": Column(("concept",), "equal for what belongs together", needed=False),
  },
  evaluator="retrieval",
  section=lambda subject, columns: {
    "name": "image_text",
    **fields(columns, image_field="image", text_field="text", group_field="group"),
  },
  metrics="image_to_text_r1, _r5, _r10, text_to_image_r1, _r5, _r10; row chance",
)
