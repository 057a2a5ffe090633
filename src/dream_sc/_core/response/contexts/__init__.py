"""Do two contexts respond differently? Both curves, the same guides in each, and hypotheses of how the curves differ."""
