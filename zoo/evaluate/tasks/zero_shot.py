"""Task: zero-shot image classification from class names."""

from zoo.evaluate.columns import IMAGE, LABEL
from zoo.evaluate.tasks import Task, fields

zero_shot = Task(
  does="classes of images by their names alone",
  needs="a model that compares images and texts",
  fits=lambda kind: kind.does == "compare",
  columns={"image": IMAGE, "label": LABEL},
  evaluator="zero_shot",
  section=lambda subject, columns: {
    "name": "labelled_images",
    **fields(columns, image_field="image", label_field="label"),
  },
  metrics="top1, top5; row chance",
)
