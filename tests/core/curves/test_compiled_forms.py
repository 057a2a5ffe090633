"""The compiled and the torch form of each curve against that of numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from dream_sc._core.compiled import from_python
from dream_sc._core.curves import LN2, chosen, curve, place

N, D = 6, 5  # curves side by side, and dosages


def _tables(code: Any, shapes: Any, consts: Any, nodes: Any, weights: Any, out: Any) -> None:
    chosen.tables(code, shapes, consts, nodes, weights, out)


def _ends(code: Any, shapes: Any, consts: Any, x: Any, out: Any) -> None:
    chosen.ends(code, shapes, consts, x, out)


def _log_curves(code: Any, theta: Any, n_amp: Any, table: Any, factor: Any, out: Any, grad: Any) -> None:
    chosen.log_curves(code, theta, n_amp, table, factor, out, grad)


def _moves(code: Any, theta: Any, n_amp: Any, up: Any, down: Any, factor: Any, out: Any) -> None:
    chosen.moves(code, theta, n_amp, up, down, factor, out)


RUN = {f.__name__: from_python(f) for f in (_tables, _ends, _log_curves, _moves)}


def _parameters(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """All parameters ``(N, P)``, and constants ``(N, 2)``."""
    if name == "polynomial":
        return 0.3 * rng.normal(size=(N, 7)), np.tile([-0.9, 2.1], (N, 1))
    if name == "additive_hill":
        return 0.7 * rng.normal(size=(N, 7)), rng.choice([-1.0, 1.0], (N, 2))
    return rng.normal(size=(N, 4)) * [1.0, 1.5, 1.0, 0.5], np.zeros((N, 2))


def _table(c: Any, params: np.ndarray, consts: np.ndarray, nodes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    n_rows = {"single_hill": 2, "additive_hill": 4, "polynomial": c.n_amplitudes}[c.name]
    out = np.zeros((len(nodes), n_rows, N))
    shapes = np.ascontiguousarray(params[:, 1 + c.n_amplitudes :].T)
    RUN["_tables"](place(c), shapes, np.ascontiguousarray(consts.T), nodes, weights, out)
    return out


@pytest.mark.parametrize("name", ["single_hill", "additive_hill", "polynomial"])
def test_curve_gradient_and_movement_are_those_of_the_formula(name: str, rng: np.random.Generator) -> None:
    c = curve(name)
    chosen.ready(place(c))
    params, consts = _parameters(name, rng)
    x = np.sort(rng.uniform(-3.0, 1.0, D))
    table = _table(c, params, consts, x[:, None].copy(), np.ones((D, 1)))

    def run(amplitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theta = np.ascontiguousarray(np.c_[params[:, :1], amplitudes].T)
        factor = np.exp(theta[1:])
        out, grad = np.zeros((D, N)), np.zeros((D, c.n_amplitudes, N))
        RUN["_log_curves"](place(c), theta, c.n_amplitudes, table, factor, out, grad)
        move = np.zeros((1, N))
        RUN["_moves"](place(c), theta, c.n_amplitudes, table[-1:].copy(), table[:1].copy(), factor, move)
        np.testing.assert_allclose(move[0], 0.5 * (out[-1] - out[0]), rtol=1e-9, atol=1e-12)
        return out, grad

    b = params[:, 1 : 1 + c.n_amplitudes]
    out, grad = run(b)
    want = c.log_curve(x, params, consts)  # with a level, which the kernel adds elsewhere
    np.testing.assert_allclose((out - out[0]).T, want - want[:, :1], rtol=1e-9, atol=1e-9)
    for k in range(c.n_amplitudes):
        step = 1e-5 * np.eye(c.n_amplitudes)[k]
        numeric = (run(b + step)[0] - run(b - step)[0]) / 2e-5
        np.testing.assert_allclose(grad[:, k], numeric, rtol=1e-5, atol=1e-8)


def test_ends_of_two_hills_are_their_logs(rng: np.random.Generator) -> None:
    c = curve("additive_hill")
    params, consts = _parameters("additive_hill", rng)
    shapes, out, guard = np.ascontiguousarray(params[:, 3:].T), np.full((6, N), 7.0), np.full((2, N), 7.0)
    RUN["_ends"](place(c), shapes, np.ascontiguousarray(consts.T), -1.3, out[:4])
    for i in range(2):
        z = consts[:, i] * LN2 * np.exp(shapes[2 * i + 1]) * (-1.3 - shapes[2 * i])
        np.testing.assert_allclose(np.exp(out[2 * i : 2 * i + 2]), [expit(z), expit(-z)], rtol=1e-9)
    np.testing.assert_array_equal(out[4:], guard)


@pytest.mark.parametrize("name", ["single_hill", "additive_hill", "polynomial"])
def test_the_torch_form_is_that_of_the_formula(name: str, rng: np.random.Generator) -> None:
    c = curve(name)
    params, consts = _parameters(name, rng)
    x = np.sort(rng.uniform(-3.0, 1.0, D))
    tensors = {k: torch.as_tensor(v[:, None]) for k, v in zip(c.params, params.T, strict=True)}
    one = torch.ones(D, 1, dtype=torch.float64)
    rows = c.torch_rows(tensors, torch.as_tensor(x)[:, None], one, torch.as_tensor(consts)).numpy()
    want = c.log_curve(x, params, consts)
    np.testing.assert_allclose(rows - rows[:, :1], want - want[:, :1], rtol=1e-9, atol=1e-9)
