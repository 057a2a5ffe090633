"""What each step takes of memory, behind `dream_sc.memory`.

In the order of use: `sizes` (of the data), `lattices` (of the trans step), `steps` and `svi` (phases of each step),
`table` (the estimate and its advice), `from_data` (sizes read off an object), `budget` (what is free), `guard` (the
look before a fit, and the measurement after it).
"""
