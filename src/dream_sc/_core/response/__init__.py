"""The trans step: from sums per guide to the rows of the table.

`fit` leads: `evidence` compares curves (`first_pass` for all features, then the kernel where it can change a call;
`wide_effects` and `guide_offsets` are learned before), `decision` makes local FDRs, q- and p-values (`null_scale`,
`guide_support`, `leave_one_guide_out`), `describe` the rest of a row (`first_pass_draws`, `summary`, `observed`,
`posterior_record`). `calibration` does it all on nulls, `categories` for features with several categories.
"""
