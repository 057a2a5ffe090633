"""One pass over the counts: a `block`, compiled `kernels`, and what is added up of it.

`guide_sums` of counts (and what the technical step needs), `share_sums` of counts out of totals, `pair_sums` of
shares and scores per guide.
"""
