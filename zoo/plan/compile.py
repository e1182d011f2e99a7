"""The cost of a config on hardware you don't have: `train.py --plan=v5p:4x4x4` compiles its real step for it."""

import dataclasses
import math
import pathlib
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from zoo.build import build, sizes_of
from zoo.data.tokenizers import tokenizer
from zoo.errors import UserError
from zoo.extras import install
from zoo.generate import generate
from zoo.perf import flops
from zoo.perf.collectives import Collective
from zoo.perf.collectives import collectives as collectives_in
from zoo.perf.programs import needed
from zoo.plan.chips import CHIPS, devices_of, named_devices, network_of, parse_target, without_device
from zoo.plan.fake_data import tokenizers, with_fake_data
from zoo.sharding import check_rows, make_mesh, num_row_shards
from zoo.sharding.explain import every_row, explain, large_replicated, parts, size
from zoo.train.context import with_rows
from zoo.train.experiment import Experiment, experiment


@dataclasses.dataclass(frozen=True)
class Plan:
  """The compiler's report on one step.

  Attributes:
    target, chips, mesh: the target; number of chips; axis name -> size.
    parameters: number of parameters.
    state: part of the train state -> its bytes on a chip, including frozen models. batch: bytes of a batch on a chip.
    padding: additional bytes on a chip for padded layouts of state and batch.
    temporary: bytes on a chip of activations, gradients and copies. None if the program did not fit.
    compile_error: the error of the compiler, if the program did not fit.
    model_flops: of one step; computed_flops: with the optimiser and rematerialisation.
    collectives: from `zoo.perf.collectives`.
    rows, tokens: of a batch; examples: name of its rows. steps: of the run.
    saved_activations: upper bound of the activations saved for the backward pass, part of `temporary`; see
      `zoo.perf.activation_memory`.
    attention: the attention kernels, and why not others; lines of `zoo.kernels.Notes`.
    notes: errors that `train.py` would raise for data that a plan does not read; arrays unexpectedly replicated.
  """

  target: str
  chips: int
  kind: str
  mesh: dict[str, int]
  parameters: int
  state: dict[str, int]
  batch: int
  padding: int
  temporary: int | None
  compile_error: str
  model_flops: int
  computed_flops: int
  collectives: list[Collective]
  rows: int
  tokens: int
  steps: int
  examples: str = "examples"
  saved_activations: int = 0
  attention: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()

  @property
  def used(self) -> int | None:
    """Total bytes per chip."""
    return None if self.temporary is None else sum(self.state.values()) + self.batch + self.padding + self.temporary

  @property
  def times(self) -> dict[str, float]:
    """Lower bounds of the step time in seconds: "compute", "memory", "links", "network". See FORMULA."""
    chip = CHIPS[self.kind]
    moved = 2 * sum(self.state.values()) - self.state.get("frozen", 0) + 2 * (self.temporary or 0) + self.batch
    return {
      "compute": self.computed_flops / self.peak,
      "memory": moved / chip.memory_speed,
      "links": sum(one.sent for one in self.collectives) / chip.link_speed,
      "network": sum(one.sent_across for one in self.collectives) / chip.network_speed,
    }

  @property
  def peak(self) -> float:
    """Total peak FLOP/s of all chips, in bfloat16."""
    return self.chips * (flops.peak_of_kind(self.kind) or math.nan)

  def utilisation(self, seconds: float) -> float:
    """Model FLOP/s utilisation of a step that takes so many seconds."""
    return self.model_flops / seconds / self.peak

  @property
  def fits(self) -> bool:
    """Whether it fits in a chip's memory."""
    return self.used is not None and self.used <= CHIPS[self.kind].memory


# Name in a plan -> name in the state.
PARTS = {
  "parameters": ("params",),
  "optimiser": ("opt_state",),
  "average": ("ema", "ema_shared"),
  "carried": ("shared", "rows"),
  "frozen": ("frozen",),
}

FORMULA = """A step takes at least the longest of these times, if everything overlaps, and their sum, if nothing does:
  compute  FLOPs of a chip, with the optimiser's and what is computed again / its peak in bfloat16
  memory   bytes of a chip, 2 x state + 2 x temporary + batch / its memory's speed: each is read and written once, but
           frozen models only read
  links    bytes that a chip sends / the speed of all its links; all-gather and reduce-scatter send (n - 1) / n of the
           array, all-reduce twice that
  network  bytes that a chip sends to other slices, or GPU hosts / its part of the network: those of a slice or a host
           share what goes there"""


def show(plan: Plan) -> str:
  """The plan as human-readable text."""
  chip, batch = CHIPS[plan.kind], plan.rows
  lines = [
    f"{plan.target}: {plan.chips} x {plan.kind}, mesh {plan.mesh}",
    f"parameters  {plan.parameters:,}",
    *plan.attention,
    *plan.notes,
  ]
  lines += ["", f"on a chip, of {size(chip.memory)}", *_memory(plan)]
  if plan.used is None:
    return "\n".join([*lines, f"It does not fit: {plan.compile_error}"])
  lines.append("It fits." if plan.used <= chip.memory else "It does not fit: it exceeds the memory of a chip.")
  lines += [
    "",
    f"a step computes {plan.model_flops / 1e12:,.2f} TFLOP, {plan.model_flops / plan.chips / 1e12:,.3f} on a chip",
  ]
  if plan.computed_flops > plan.model_flops:
    lines[-1] += f"; {plan.computed_flops / plan.model_flops:.2f} times that with the optimizer and rematerialisation"
  lines += ["", "a chip sends", *_sent(plan.collectives)]
  times = {name: seconds for name, seconds in plan.times.items() if seconds or name != "network"}
  longest, total = max(times.values()), sum(times.values())
  lines += ["", *(f"{name:<9}{1000 * seconds:>10.2f} ms" for name, seconds in times.items())]
  bounds = [plan.utilisation(seconds) for seconds in (longest, total)]
  lines.append(
    f"step     {1000 * longest:>10.2f} to {1000 * total:.2f} ms: {bounds[0]:.0%} to {bounds[1]:.0%} utilisation"
  )
  lines.append(f"         {batch / total:,.0f} to {batch / longest:,.0f} {plan.examples}/s")
  if plan.tokens:
    lines.append(f"         {plan.tokens / total:,.0f} to {plan.tokens / longest:,.0f} tokens/s")
  low, high = (plan.steps * seconds / 3600 for seconds in (longest, total))
  cost = f"{plan.chips * low:,.1f} to {plan.chips * high:,.1f} chip-hours"
  lines.append(f"run      {low:,.2f} to {high:,.2f} hours for {plan.steps:,} steps, {cost}")
  return "\n".join([*lines, "", FORMULA])


def _memory(plan: Plan) -> list[str]:
  """Lines on memory: bytes per chip, and their share of its memory."""
  named_parts = {name: sum(plan.state.get(part, 0) for part in parts) for name, parts in PARTS.items()}
  named_parts = {name: count for name, count in named_parts.items() if count}
  by_part = {**named_parts, "counters": sum(plan.state.values()) - sum(named_parts.values()), "batch": plan.batch}
  if plan.temporary is not None:
    by_part |= {"padding": plan.padding, "temporary": plan.temporary, "together": plan.used or 0}
  memory = CHIPS[plan.kind].memory
  lines = {name: f"  {name:<12}{size(count):>12}{count / memory:>9.1%}" for name, count in by_part.items()}
  if 0 < plan.saved_activations < (plan.temporary or 0):
    lines["temporary"] += f", at most {size(plan.saved_activations)} of it activations saved for the backward pass"
  return list(lines.values())


def _sent(collectives: list[Collective]) -> list[str]:
  """Lines on collectives: kind, mesh axes, count and bytes."""
  summed: dict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0])
  for one in collectives:
    entry = summed[one.kind, "+".join(one.axes), one.devices]
    for place, more in enumerate((one.times, one.sent, one.sent_across)):
      entry[place] += more
  lines = []
  for (kind, axes, devices), (times, sent, across) in sorted(summed.items(), key=lambda item: -sum(item[1][1:])):
    network = f"{size(across):>12} over the network" if across else ""
    lines.append(f"  {kind:<20}over {axes:<12}of {devices:<5}{times:>6} times{size(sent):>12}{network}")
  return lines or ["  nothing"]


def plan(config: Any, target: str) -> Plan:
  """Compiles one step of a config for hardware you don't have.

  Args:
    config: as in `train.py`. Its data are not read: see `zoo.plan.fake_data`.
    target: as for `zoo.plan.chips.parse_target`: "v5e:4x4", "2*v5p:4x4x4", "h100:8".

  Raises:
    UserError: the compiler for the target is not installed, there is no such target, or the config does not fit it.
  """
  parsed_target = parse_target(target)
  devices = devices_of(parsed_target)
  experiment, mesh, batch = experiment_on_devices(config, devices)
  check_rows(config.batch_size, mesh)
  try:
    saved_activations = experiment.saved_activation_bytes(batch) // num_row_shards(mesh)
  except RuntimeError as error:
    if "cuDNN" not in str(error):
      raise
    message = str(error).splitlines()[0].rstrip(".")
    raise UserError(f"--plan={parsed_target}: {message}: {install('cuda')}, or set attention to xla.") from error
  rows = every_row(experiment.shapes, config.sharding, mesh, experiment.frozen.shapes)
  placed = parts(rows)
  splits = any(row.bytes_per_device < row.bytes for row in placed["params"])
  fields: dict[str, Any] = dict(
    target=str(parsed_target),
    chips=mesh.size,
    kind=devices[0].device_kind,
    mesh=dict(mesh.shape),
    parameters=experiment.parameters,
    state={part: sum(row.bytes_per_device for row in part_rows) for part, part_rows in placed.items()},
    batch=sum(math.prod(experiment.by_row.shard_shape(x.shape)) * x.dtype.itemsize for x in batch.values()),
    saved_activations=saved_activations,
    model_flops=experiment.model_flops(batch),
    computed_flops=experiment.computed_flops(batch),
    rows=config.batch_size,
    steps=config.steps,
    notes=(*vocabularies(config), *([whole] if splits and (whole := large_replicated(rows, mesh)) else [])),
    **batch_counts(batch),
  )
  lowered = experiment.compiled_step().lower(
    experiment.shapes, batch, *experiment.frozen_arguments(experiment.frozen.shapes)
  )
  fields["attention"] = tuple(experiment.attention.lines())
  try:
    compiled = lowered.compile(without_device(devices[0]))
  except jax.errors.JaxRuntimeError as error:
    message = [line.strip() for line in str(error).splitlines()]
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise UserError(f"--plan={parsed_target}: XLA cannot compile the step: {message[0]}") from error
    first = next((line for line in message if "memory" in line), message[0])
    return Plan(**fields, padding=0, temporary=None, compile_error=first, collectives=[])
  sent = collectives_in(compiled.as_text(), mesh.shape, [network_of(device) for device in mesh.devices.flat])
  argument_bytes = compiled.memory_analysis().argument_size_in_bytes
  padding = max(0, argument_bytes - sum(fields["state"].values()) - fields["batch"])
  temporary = needed(compiled, devices[0].platform) - sum(fields["state"].values()) - fields["batch"] - padding
  return Plan(**fields, padding=padding, temporary=temporary, compile_error="", collectives=sent)


def sharding_report(config: Any, target: str) -> str:
  """`zoo.sharding.explain.explain` for a config on hardware you don't have; nothing is compiled, no compiler need be
  installed.

  Raises:
    UserError: there is no such target, or the config does not fit it.
  """
  experiment, mesh, _ = experiment_on_devices(config, named_devices(parse_target(target)))
  return explain(experiment.shapes, config.sharding, mesh, experiment.frozen.shapes)


def batch_counts(batch: Mapping[str, Any]) -> dict[str, Any]:
  """The name of a batch's rows, and its number of tokens, of inputs and targets."""
  if "image" in batch:
    return {"examples": "pairs" if "tokens" in batch else "images", "tokens": 0}
  sides = [math.prod(batch[name].shape) for name in ("tokens", "target_tokens") if name in batch]
  return {"examples": "examples", "tokens": sum(sides)}


def vocabularies(config: Any) -> list[str]:
  """Errors that `train.py` would raise for tokenizers with more tokens than the model."""
  vocab_size = sizes_of(build(**config.model)).get("vocab_size")
  needed = {name: tokenizer(name).vocab_size for name in tokenizers(config.data.to_dict())}
  return [
    f"train.py would refuse these data: tokenizer '{name}' has {count:,} tokens, model.vocab_size is {vocab_size:,}"
    for name, count in needed.items()
    if vocab_size is not None and count > vocab_size
  ]


def experiment_on_devices(
  config: Any, devices: Sequence[Any]
) -> tuple[Experiment, Mesh, dict[str, jax.ShapeDtypeStruct]]:
  """-> the experiment of a config on devices, of which names suffice, their mesh, and the shapes of a step's batch."""
  mesh = make_mesh(config.mesh, devices)
  with tempfile.TemporaryDirectory() as folder:
    settings = config.copy_and_resolve_references().unlock()
    settings.batch_size = num_row_shards(mesh)  # Only shapes of the data are needed.
    settings.init = None  # The same for weights, which may not be here.
    settings.data = with_fake_data(config.data.to_dict(), pathlib.Path(folder))
    planned_experiment = experiment(settings, mesh, offers={"generate": generate})
    planned_experiment = planned_experiment._replace(shapes=with_rows(planned_experiment.shapes, config.batch_size))
    batch = {
      name: jax.ShapeDtypeStruct((config.batch_size, *array.shape[1:]), array.dtype)
      for name, array in planned_experiment.batches[0].items()
    }
    batch = dict(planned_experiment.collected(batch))
  return planned_experiment, mesh, batch
