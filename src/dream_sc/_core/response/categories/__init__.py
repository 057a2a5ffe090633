"""Features with several categories: `links` that share a shape, on the road of `response` with stations of their own.

In order of use: `evidence` (of links, put together), `decision`, `describe` with `shapes`, `proposals`, `draws` and
`usage`, `all_categories`; `baseline_usage` belongs to the technical step.
"""
