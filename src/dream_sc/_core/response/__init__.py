"""The trans step: from sums per guide to the rows of the table. `fit` is the road, its stations are in this order.

- `prepare` (`prepare_shares`, `prepare_scores`): what is measured, in `rows` of cells, with `guide_offsets`.
- `evidence`: curves compared (`comparison`, `wide_effects`, `ntc_guides`; `first_pass` for all features, then the
  kernel, with a `problem` ready for it, where it can change a call).
- `decision`: local FDRs, q- and p-values, by what is `learned` over features and `simulated_nulls` on a `null_scale`;
  `graded`: whether a response follows the dosage.
- `describe`: `draws` (`importance`, `first_pass_draws`), their `summary` and `posterior_record`, what single guides say
  (`guide_contrasts`, `guide_support`, `leave_one_guide_out`), and `all_features` with their status.

`settings` go along. `categories` has the stations of features with several categories, `calibration` walks on nulls,
`observed` is for plots, `response_groups` sorts finished curves.
"""
