"""The cis step: `guides` leads, with the count of one of the `cells`, `escaping_cells` and cells with `guide_sets`.

`nodes` are dosages that stand for the cells of a guide in the trans step.
"""
