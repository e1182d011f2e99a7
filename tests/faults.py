"""What makes a config's data fail at a step on one host, as FAULT says: real processes that really hang and die."""

PLANTED = """
import os, time
import numpy as np
from zoo.data import pipeline

kind, at, host = os.environ.get("FAULT", "none:0:0").split(":")
if kind != "none" and os.environ.get("JAX_PROCESS_ID", "0") == host:
  iterate, item = pipeline.Batches.iterate, pipeline.Batches.__getitem__

  def spoiled(step, batch):
    bad = step in map(int, at.split(","))
    if kind == "spike":  # What is always a nought is for once a one.
      return {**batch, "label": np.full_like(batch["label"], bad)}
    return {**batch, "image": batch["image"] * np.float32(np.nan)} if kind == "nan" and bad else batch

  def faulty(self, start_step=0):
    for step, batch in enumerate(iterate(self, start_step), start_step + 1):
      if str(step) == at:
        if kind == "exception":
          raise RuntimeError("planted")
        if kind == "hang":
          time.sleep(1e6)
        if kind == "kill":
          os.kill(os.getpid(), 9)
      yield spoiled(step, batch)

  pipeline.Batches.iterate = faulty
  pipeline.Batches.__getitem__ = lambda self, k: spoiled(k + 1, item(self, k))
"""
