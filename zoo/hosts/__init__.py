"""Multi-host processes: start-up, consensus, preemption and shutdown."""

from zoo.hosts.process import Preemption, join, run

__all__ = ["Preemption", "join", "run"]
