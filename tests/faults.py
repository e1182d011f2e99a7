"""Makes hosts fail at a step, as the variable FAULT says, `KIND:STEP:HOST`, several joined by `+`: real processes that
really hang and die."""

PLANTED = """
import os, resource, time
import numpy as np
from zoo.checkpoints import manager as checkpoints
from zoo.data import pipeline

faults = [one.split(":") for one in os.environ.get("FAULT", "none:0:0").split("+")]
steps = checkpoints.steps

def spoiled(kind, at, step, batch):
  bad = step in map(int, at.split(","))
  if kind == "spike":  # What is always a nought is for once a one.
    return {**batch, "label": np.full_like(batch["label"], bad)}
  return {**batch, "image": batch["image"] * np.float32(np.nan)} if kind == "nan" and bad else batch

def failing(kind, at, step):
  if str(step) == at:
    if kind == "exception":
      raise RuntimeError("planted")
    if kind == "hang":
      time.sleep(1e6)
    if kind == "full":  # A disk that is, from now on.
      resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    if kind == "kill":
      os.kill(os.getpid(), 9)

def plant(kind, at):
  iterate, item = pipeline.Batches.iterate, pipeline.Batches.__getitem__

  def faulty(self, start_step=0):
    for step, batch in enumerate(iterate(self, start_step), start_step + 1):
      failing(kind, at, step)
      yield spoiled(kind, at, step, batch)

  pipeline.Batches.iterate = faulty
  pipeline.Batches.__getitem__ = lambda self, k: spoiled(kind, at, k + 1, item(self, k))

for kind, at, host in faults:
  if os.environ.get("JAX_PROCESS_ID", "0") == host:
    if kind == "late":  # A network drive that does not show this host yet what another one has written.
      checkpoints.steps = lambda folder: steps(folder)[:-1]
    elif kind != "none":
      plant(kind, at)
"""
