"""Do two contexts respond differently? Both curves, the same guides in each, and how the curves may differ."""
