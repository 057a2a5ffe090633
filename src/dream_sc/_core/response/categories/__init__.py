"""Features with several categories: links that share a shape, compared and described together.

In order of use: `evidence`, `shapes`, `proposals`, `draws`, `usage`, `describe`; `baseline_usage` belongs to the
technical step.
"""
