"""Whole libraries: which targets can be fitted, the fit of each, the store of parts, and one table of all."""
