"""The joint densities as Pyro `models`, and what samples them: `svi` and `nuts`.

`tensors` and `scores` give models their data, `families` are variational families, `choose_family` the rule of memory.
"""
