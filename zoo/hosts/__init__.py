"""One program on many hosts: it starts, agrees, hangs and ends together."""

from zoo.hosts.process import Preemption, join, run

__all__ = ["Preemption", "join", "run"]
