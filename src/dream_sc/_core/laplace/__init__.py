"""Compiled kernels of the nested Laplace approximation, and nothing of the method around them.

`layout` says what they take. `modes` finds the modes of a feature's parameters: `marginal` is the density, with
`guide_effects` integrated, curves by `curve_tables` and errors of covariates by `covariate_errors`. `quadrature` is the
density that draws are weighted to, `lookup` that of the first pass; `linalg` is small.
"""
