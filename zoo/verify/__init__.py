"""Whether a mesh computes what one device does, found out before a run trusts it."""
