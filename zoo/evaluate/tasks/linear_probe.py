"""Task: few-shot linear probe on image embeddings."""

from zoo.evaluate.columns import IMAGE, LABEL
from zoo.evaluate.tasks import Task, fields

linear_probe = Task(
  does="what a linear classifier learns from vectors of a few images of each class (`train_split`, by default train)",
  needs="an encoder of images",
  fits=lambda kind: "images" in kind.reads and kind.does in ("classify", "compare", "encode"),
  columns={"image": IMAGE, "label": LABEL},
  evaluator="linear_probe",
  section=lambda subject, columns: {
    "name": "labelled_images",
    **fields(columns, image_field="image", label_field="label"),
  },
  metrics="accuracy_1_shot, _5_, _10_, std_1_shot ...; rows pixels, majority",
)
