"""Knowledge distillation from the class probabilities of a frozen teacher (https://arxiv.org/abs/1503.02531)."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from zoo.errors import UserError, shown
from zoo.objectives import classify
from zoo.objectives.objective import NOTHING, Context, Objective, apply, apply_with_carry, output, ratio, row_weight
from zoo.preprocessing import as_float

TEACHER = "teacher"


def distill(model: Any, *, frozen: Mapping[str, Any], temperature: float = 2.0, hard: float = 0.5) -> Objective:
  """Distillation loss: hard * cross entropy of labels + (1 - hard) * T**2 * KL(teacher || student), at temperature T.

  The factor T**2 keeps both parts in balance at every temperature (section 2 of the paper). The teacher sees the
  same augmented input and is not trained.

  Args:
    model: the student, as in `classify`.
    frozen: models that are not trained, by name: "teacher" has as many classes. From the config's `frozen`.
    temperature: divides the logits of both, above 0.
    hard: weight of the labels in the loss, 0 to 1.

  Batch and init as in `classify`, labels int32 [batch]. Metrics: loss, accuracy, agreement (how often student and
  teacher choose the same class), divergence (the KL in nats, without T**2).

  Raises:
    UserError: there is no teacher, it takes other inputs than the student, or a value is out of range.

  >>> import zoo
  >>> sizes = dict(image_size=4, patch_size=2, num_heads=2, num_classes=3)
  >>> teacher, student = zoo.build("vit", **sizes, dim=8, depth=2), zoo.build("vit", **sizes, dim=4, depth=1)
  >>> objective = distill(student, frozen={"teacher": teacher})
  >>> batch = {"image": jnp.zeros((2, 4, 4, 3)), "label": jnp.array([0, 2])}
  >>> params = objective.init(jax.random.key(0), batch)
  >>> known = Context(frozen={"teacher": teacher.init(jax.random.key(1), batch["image"])["params"]})
  >>> loss, metrics = objective.loss(params, batch, None, known)
  >>> loss.shape, sorted(metrics)
  ((), ['accuracy', 'agreement', 'divergence', 'loss'])
  """
  if TEACHER not in frozen:
    raise UserError("distill needs a teacher. Set frozen.teacher to the folder of a run, or of a published model.")
  if not temperature > 0:
    raise UserError(f"distill.temperature is {temperature}. It must be above 0.")
  if not 0 <= hard <= 1:
    raise UserError(f"distill.hard is {hard}. It must be from 0 to 1.")
  teacher = frozen[TEACHER]
  if not hasattr(teacher, "apply"):
    raise UserError(f"The teacher is {shown(teacher)}. It must be a model, from zoo.load or zoo.build.")
  theirs, ours = (one.preprocessing.get("tokenizer") for one in (teacher, model))
  if theirs is not None and theirs != ours:
    raise UserError(f"The teacher's tokenizer is {theirs}, the student's {ours}. Set model.preprocessing.tokenizer.")
  if None not in (teacher.image_shape, model.image_shape) and teacher.image_shape != model.image_shape:
    raise UserError(
      f"The teacher takes images of shape {teacher.image_shape}, the student {model.image_shape}. Set image_size."
    )
  shades = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 1, 256, 3)
  if not np.allclose(*(as_float(shades, one) for one in (teacher, model)), rtol=0, atol=1e-5):
    entries = [one.preprocessing.get("image", "x / 127.5 - 1") for one in (teacher, model)]
    raise UserError(
      f"The teacher's pixels are {entries[0]}, the student's {entries[1]}: both get the same augmented images. Set "
      "model.preprocessing.image to the teacher's."
    )
  labels = classify.classify(model)

  def forward(params: Any, batch: dict, rng: jax.Array | None = None, context: Context = NOTHING) -> dict:
    if batch["label"].ndim != 1:
      raise UserError(
        f"distill takes int labels [batch], the batch has {batch['label'].shape}. Remove mixup from data.augment."
      )
    inputs, options = classify.inputs(batch, model), classify.options(batch, model)
    outputs, carried, _ = apply_with_carry(context, model, params, *inputs, rng=rng, **options)
    logits = output(outputs, "logits", "distill", "Set the model's num_classes.")
    inputs, options = classify.inputs(batch, teacher), classify.options(batch, teacher)
    teaching = apply(teacher, context.frozen[TEACHER], *inputs, **options)
    target = output(teaching, "logits", "distill", "Choose a teacher that classifies.")
    if target.shape != logits.shape:
      raise UserError(
        f"The teacher returns logits {target.shape}, the student {logits.shape}. Set model.num_classes to the "
        "teacher's."
      )
    log_p, log_q = (jax.nn.log_softmax(x / temperature) for x in (target, logits))
    is_class = (batch["label"] >= 0) & (batch["label"] < logits.shape[-1])
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(is_class, batch["label"], 0))
    best = logits.argmax(-1)
    return {
      "divergence": (jnp.exp(log_p) * (log_p - log_q)).sum(-1),
      "nll": jnp.where(is_class, nll, jnp.nan),
      "correct": (best == batch["label"]).astype(jnp.float32),
      "agree": (best == target.argmax(-1)).astype(jnp.float32),
      "weight": row_weight(batch, len(logits)),
      **carried,
    }

  def reduce(outputs: dict) -> tuple[jax.Array, dict]:
    weight = outputs["weight"]
    mean = lambda name: ratio(jnp.where(weight > 0, outputs[name], 0) * weight, weight)
    divergence = mean("divergence")
    loss = hard * mean("nll") + (1 - hard) * temperature**2 * divergence
    return loss, {"loss": loss, "accuracy": mean("correct"), "agreement": mean("agree"), "divergence": divergence}

  return labels._replace(forward=forward, reduce=reduce)
