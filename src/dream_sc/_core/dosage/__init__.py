"""The cis step; `guides` leads.

On the `lattice`, `control_level` comes first, then `escaping_cells` and `guide_sets` make the likelihood of each guide,
`population` its posterior, and `cell_dosages` (compiled: `cells`) that of its cells. `offsets` are taken off the
exposures before. `resolution` says whether guides are told apart, `ambient_bound` how many counts can be ambient.
`nodes` are dosages that stand for the cells of a guide in the trans step.
"""
