"""AnnData, MuData and files to arrays and back: nobody else opens a matrix or knows how a storage is read.

In the order of the road: `storage` (memory, file, dask), `counts` (checked blocks), `shares` (pairs, categories),
`scores`, `guide_matrix`, `cis_cells` and `groups` (which cell is what), `covariates` with `formula`, `stored` (what
files hold is checked), `results` (written back).
"""
