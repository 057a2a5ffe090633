"""The compact record keeps what it must of the draws."""

from __future__ import annotations

import numpy as np
import pytest

from dream_sc._core.curves import CURVES, curve
from dream_sc._core.response import posterior_record


def _draws(name: str, rng: np.random.Generator, n: int = 1024) -> np.ndarray:
    p = len(curve(name).params)
    z = rng.normal(size=(3, n, p)) @ rng.normal(size=(p, p)) * 0.3
    if p > 2:
        z[..., 2] += z[..., 1] ** 2  # a bent ridge
    return z


@pytest.mark.parametrize("name", [c.name for c in CURVES])
def test_mean_and_covariance_are_kept(name: str, rng: np.random.Generator) -> None:
    draws = _draws(name, rng)
    records = posterior_record.pack_block(draws, curve(name), np.tile([1.0, -1.0], (3, 1)))
    assert records.shape == (3, 512)
    assert records.nbytes == 3 * 1024
    for draw, record in zip(draws, records, strict=True):
        c, consts, kept = posterior_record.unpack(record)
        assert c.name == name
        np.testing.assert_array_equal(consts, [1.0, -1.0])
        sd = draw.std(0)
        assert (np.abs(kept.mean(0) - draw.mean(0)) < 0.25 * sd).all()
        assert (np.abs(np.log(kept.std(0) / sd)) < 0.25).all()
        np.testing.assert_allclose(np.corrcoef(kept.T), np.corrcoef(draw.T), atol=0.25)
        # what is kept are draws, up to the precision of float16
        distance = np.abs(kept[:, None] - draw[None]).max(-1).min(1)
        assert (distance < 0.01).all()


def test_quantiles_of_a_bent_posterior_are_kept(rng: np.random.Generator) -> None:
    draws = _draws("single_hill", rng, 1000)
    record = posterior_record.pack_block(draws, curve("single_hill"), np.zeros((3, 2)))[0]
    again = posterior_record.draw(record, 20_000, 0, "g")
    for j in range(4):
        q = [0.025, 0.5, 0.975]
        error = np.quantile(again[:, j], q) - np.quantile(draws[0, :, j], q)
        sd = draws[0, :, j].std()
        assert abs(error[1]) < 0.15 * sd
        assert np.abs(error).max() < 0.5 * sd  # the tails of a record are coarser than those of the table


def test_draws_depend_on_name_and_seed_only(rng: np.random.Generator) -> None:
    records = posterior_record.pack_block(_draws("single_hill", rng), curve("single_hill"), np.zeros((3, 2)))
    alone = posterior_record.draw(records[1], 9, 4, "b")
    np.testing.assert_array_equal(alone, posterior_record.draw(records[1:][0], 9, 4, "b"))
    assert not np.array_equal(alone, posterior_record.draw(records[1], 9, 4, "c"))
    assert not np.array_equal(alone, posterior_record.draw(records[1], 9, 5, "b"))


def test_few_draws_still_make_a_record(rng: np.random.Generator) -> None:
    draws = _draws("null", rng, 10)
    record = posterior_record.pack_block(draws, curve("null"), np.zeros((3, 2)))[0]
    assert posterior_record.unpack(record)[2].shape == (8, 1)


def test_missing_posterior_is_an_error() -> None:
    with pytest.raises(ValueError, match="not fitted"):
        posterior_record.unpack(np.full(512, np.nan, dtype=np.float16))
