"""Many targets of one library: what their fits share, and a first pass over all pairs of a target and a feature."""
