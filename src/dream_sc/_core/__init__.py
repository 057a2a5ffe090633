"""Pure numerics on arrays and tensors: curves, likelihoods, priors, models, engines.

Nothing here knows AnnData, MuData, pandas or matplotlib.
"""
