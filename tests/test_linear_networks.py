"""Exact moments of linear networks: enumeration, closed forms, limits, and explicit weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from depthscale.answers import InputError
from depthscale.theory.linear import draws, linear_moments
from depthscale.theory.meanfield import MeanField


def linear(weight: float = 0.9, drop: float = 0.1, masks: str = "independent", **other):
    """Weight variance ``weight``."""
    return MeanField("identity", math.sqrt(weight), drop=drop, masks=masks, **other)


def behind_raw_input(depth: int, layer: MeanField) -> list[MeanField]:
    return [replace(layer, drop=0.0), *[layer] * (depth - 1)]


def test_reference_values():
    """Nine digits of an independent calculation: n = 64, L = 12, raw inputs, drop 0.1."""
    found = linear_moments(behind_raw_input(12, linear()), [64] * 13, eps=0.4).gradient[[0, 6, 11]]
    # half a unit of the last printed digit
    assert found[:, 0, 0] == pytest.approx([5.51518102e4, 3.15504031e4, 5.46603971e3], rel=5e-9)
    assert found[:, 0, 1] == pytest.approx([6.99939287e3, 2.62226443e3, 4.76673713e2], rel=5e-9)


# Enumeration -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A network small enough to sum over all its draws."""

    layers: list[MeanField]
    widths: list[int]
    start: tuple[float, float, float]
    untied: bool = True


ENUMERATED = {
    "bias, independent": Case(
        [linear(0.7, 0.0, sigma_b=0.5), linear(1.2, 0.3, sigma_b=0.8)], [1, 2, 1], (1.3, 1.3, 0.0)
    ),
    "uneven, shared": Case(
        [linear(0.7, 0.0), linear(1.2, 0.3, "shared", sigma_b=0.4)], [2, 1, 2], (1.0, 2.0, 0.4)
    ),
    "masked input, overlap": Case(
        [linear(0.7, 0.2, "overlap(0.3)"), linear(1.2, 0.4, "overlap(0.6)")],
        [2, 1, 1],
        (1.0, 2.0, 0.7),
    ),
    "skip": Case(
        [linear(0.7, 0.0), linear(1.2, 0.4, "overlap(0.6)", skip=0.7)],
        [2, 2, 2],
        (1.0, 2.0, 1.5),
        untied=False,
    ),
    "skips and biases, clean": Case(
        [
            linear(0.7, 0.3, "clean", sigma_b=0.3, skip=0.5),
            linear(1.2, 0.4, "clean", sigma_b=0.6, skip=0.7),
            linear(0.8, 0.1, sigma_b=0.2, skip=1.1),
        ],
        [1, 1, 1, 1],
        (1.5, 0.7, 2.0),
    ),
    "masked input, skip": Case(
        [linear(0.7, 0.2, skip=0.6), linear(1.2, 0.3, "shared")], [2, 2, 1], (1.0, 0.8, 1.2), False
    ),
}

# Three-point Gauss-Hermite: exact up to the power 5, and no weight or bias has more than 4.
NORMAL = (np.array([-math.sqrt(3), 0.0, math.sqrt(3)]), np.array([1, 4, 1]) / 6)


def pair_masks(layer: MeanField) -> tuple[np.ndarray, np.ndarray]:
    """``(D_1, D_2)`` and their chances, by hand."""
    p, keep = layer.drop, 1 - layer.drop
    if p == 0:
        return np.ones((1, 2)), np.ones(1)
    values = np.array([[1, 1], [1, 0], [0, 1], [0, 0]]) / keep
    apart = np.array([keep * keep, keep * p, p * keep, p * p])
    shared = np.array([keep, 0, 0, p])
    if layer.masks == "clean":
        return np.array([[1 / keep, 1], [0, 1]]), np.array([keep, p])
    r = {"independent": 0.0, "shared": 1.0}.get(layer.masks)
    r = float(layer.masks[8:-1]) if r is None else r
    chance = r * shared + (1 - r) * apart
    return values[chance > 0], chance[chance > 0]


class Draw:
    """All draws of a network at once; ``h[input, unit, draw]``."""

    def __init__(self, case: Case):
        tables: list[tuple[np.ndarray, np.ndarray]] = []

        def several(table: tuple[np.ndarray, np.ndarray], count: int) -> list[int]:
            tables.extend([table] * count)
            return list(range(len(tables) - count, len(tables)))

        hops = []
        for depth, (layer, n, m) in enumerate(
            zip(case.layers, case.widths[:-1], case.widths[1:], strict=True)
        ):
            hops.append(
                (
                    several(NORMAL, n * m),
                    several(NORMAL, m if layer.sigma_b else 0),
                    several(pair_masks(layer), n),
                    several(NORMAL, n * m if case.untied and depth else 0),
                )
            )
        n = case.widths[0]
        # fixed start in all directions: a polynomial of degree 4 in them is exact on 8 angles
        frames = np.array([[[1.0]], [[-1.0]]]) if n == 1 else directions()
        (frame,) = several((frames, np.full(len(frames), 1 / len(frames))), 1)
        index = np.indices([len(w) for _, w in tables]).reshape(len(tables), -1)
        self.chance = np.prod([w[i] for (_, w), i in zip(tables, index, strict=True)], axis=0)

        def drawn(places: list[int], *shape: int) -> np.ndarray:
            values = [tables[k][0][index[k]] for k in places]
            return np.array(values).reshape(*shape, *np.shape(values)[1:])

        q1, q2, eps = case.start
        angle = [1.0, 0.0], [1 - eps, math.sqrt(eps * (2 - eps))]
        vectors = np.sqrt(n * np.array([q1, q2]))[:, None] * np.array(angle)[:, :n]
        self.h = [np.einsum("zij,aj->aiz", frames[index[frame]], vectors)]
        self.x, self.d, self.w, self.back = [], [], [], []
        for layer, n, m, (w, b, d, back) in zip(
            case.layers, case.widths[:-1], case.widths[1:], hops, strict=True
        ):
            scale = layer.sigma_w / math.sqrt(n)
            self.w.append(scale * drawn(w, m, n))
            self.back.append(scale * drawn(back, m, n) if back else self.w[-1])
            self.d.append(np.array([tables[k][0][index[k]] for k in d]).transpose(2, 0, 1))
            self.x.append(self.d[-1] * self.h[-1])
            h = np.einsum("ijz,ajz->aiz", self.w[-1], self.x[-1])
            if layer.skip:
                h += layer.skip * self.h[-1]
            if layer.sigma_b:
                h += layer.sigma_b * drawn(b, m)
            self.h.append(h)

    def mean(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return np.einsum("z,ijz,kmz->ijkm", self.chance, left, right)

    def gradient(self, case: Case, weights: list[np.ndarray]) -> np.ndarray:
        delta, result = self.h[-1], []
        for layer, w, d, x in reversed(
            list(zip(case.layers, weights, self.d, self.x, strict=True))
        ):
            result.append(np.einsum("z,ijz,ijz->ij", self.chance, gram(delta), gram(x)))
            kept = layer.skip * delta if layer.skip else 0.0
            delta = kept + d * np.einsum("ijz,aiz->ajz", w, delta)
        return np.array(result[::-1])


def directions() -> np.ndarray:
    angles = np.arange(8) * math.pi / 4
    turn = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])
    turn = turn.transpose(2, 0, 1)
    return np.concatenate([turn, turn * np.array([1, -1])])


def gram(h: np.ndarray) -> np.ndarray:
    return np.einsum("aiz,biz->abz", h, h)


@pytest.mark.parametrize("name", ENUMERATED)
def test_every_moment_is_that_of_all_draws(name):
    """Sums over every mask and every node of every weight and bias: exact, whatever the theory."""
    case = ENUMERATED[name]
    draw = Draw(case)
    q1, q2, eps = case.start
    found = linear_moments(case.layers, case.widths, q1=q1, q2=q2, eps=eps)
    assert draw.chance.sum() == pytest.approx(1, rel=1e-12)
    for depth, (h, n) in enumerate(zip(draw.h, case.widths, strict=True)):
        mean = gram(h) @ draw.chance / n
        assert found.kernel[depth] == pytest.approx(mean, rel=1e-11, abs=1e-13)
        products = draw.mean(gram(h), gram(h)) / n**2
        assert found.kernel_products[depth] == pytest.approx(products, rel=1e-11, abs=1e-13)
    for depth, (x, n) in enumerate(zip(draw.x, case.widths, strict=False)):
        products = draw.mean(gram(x), gram(x)) / n**2
        assert found.signal_products[depth] == pytest.approx(products, rel=1e-11, abs=1e-13)
    tied = draw.gradient(case, draw.w)
    assert found.gradient == pytest.approx(tied, rel=1e-11, abs=1e-13)
    if case.untied:
        untied = draw.gradient(case, [draw.w[0], *draw.back[1:]])
        assert found.gradient_untied == pytest.approx(untied, rel=1e-11, abs=1e-13)
        assert abs(untied[0, 0, 0] / tied[0, 0, 0] - 1) > 0.1


@pytest.mark.parametrize(("masks", "cross"), [("independent", 2), ("shared", 3)])
def test_one_unit_a_layer_is_a_product(masks, cross):
    """n = 1: ``E G^l = s q_a q_b (3 s^2 E[D_a^2 D_b^2])^(L-1)`` at every hop.

    ``G = h_a^L h_b^L J_a J_b x_a x_b`` holds W^l twice, every other weight four times, and the
    masks of hops 1..L-1 as D_a^2 D_b^2.
    """
    s, keep, depth = 0.8, 0.7, 5
    layers = behind_raw_input(depth, linear(s, 1 - keep, masks))
    found = linear_moments(layers, [1] * (depth + 1), q1=1.5, q2=0.6, eps=2.0).gradient
    for a, b, power in ((0, 0, 3), (0, 1, cross), (1, 1, 3)):
        length = (1.5, 0.6)[a] * (1.5, 0.6)[b]
        expected = s * length * (3 * s**2 * keep**-power) ** (depth - 1)
        assert found[:, a, b] == pytest.approx([expected] * depth, rel=1e-12)


# The noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["gaussian", "gaussian(0.4)", "gaussian(1)"])
def test_gaussian_noise_has_its_moments(masks):
    """Isserlis: ``E D_1^2 D_2^2 = 1 + 2 v + 4 c + v^2 + 2 c^2``, ``E D^4 = 1 + 6 v + 3 v^2``."""
    layer = linear(1.0, 0.3, masks)
    law, v = draws(layer), 0.3 / 0.7
    c = layer.noise.overlap * v
    one, other = law.mean + law.half, law.mean - law.half
    assert law.weight @ one == pytest.approx(1)
    assert law.weight @ (one * other) == pytest.approx(1 + c)
    assert law.weight @ one**4 == pytest.approx(1 + 6 * v + 3 * v**2)
    assert law.weight @ other**4 == pytest.approx(1 + 6 * v + 3 * v**2)
    assert law.weight @ (one * other) ** 2 == pytest.approx(1 + 2 * v + 4 * c + v**2 + 2 * c**2)
    assert law.weight @ (one**3 * other) == pytest.approx(1 + 3 * v + 3 * c + 3 * v * c)


@pytest.mark.parametrize(
    "masks", ["independent", "shared", "clean", "overlap(0.3)", "gaussian(0.3)"]
)
@pytest.mark.parametrize("drop", [0.0, 1e-12, 0.3])
def test_noise_agrees_with_the_moments_of_the_maps(masks, drop):
    layer = linear(1.0, drop, masks)
    law, known = draws(layer), layer.moments
    one, other = law.mean + law.half, law.mean - law.half
    found = [law.weight @ y for y in (one**2, other**2, one * other, 2 * law.half**2)]
    apart = (known.first_excess + known.second_excess) / 2
    assert found == pytest.approx([known.first, known.second, known.cross, apart], rel=1e-12)


# Limits and laws ---------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", ["independent", "shared", "overlap(0.5)"])
def test_wide_networks_follow_the_tied_theory(masks):
    """``E G = n^2 S^(l+1) <x x>``, ``S^l = sigma_w^4 M R^2 <h h> + chi S^(l+1)``, ``S^L = <h h>``.

    ``R = chi_1^k`` is the response of the gradient to the signal k layers above. The independence
    assumption has the last term only. Residual: depth over n, for pairs times
    ``(chi_1/chi_2)^(2 depth)``, their noise floor: 1e-6 at n = 10^9.
    """
    layer, depth, n = linear(0.9, 0.1, masks), 24, 10**9
    layers = behind_raw_input(depth, layer)
    found = linear_moments(layers, [n] * (depth + 1), eps=0.4)
    on = layer.moments
    law = draws(layer)
    fourth = law.weight @ np.array([(law.mean + law.half) ** 4, (law.mean**2 - law.half**2) ** 2]).T
    for (a, b), chi, m4 in zip(
        ((0, 0), (0, 1)), 0.9 * np.array([on.first, on.cross]), fourth, strict=True
    ):
        tied = untied = found.kernel[-1, a, b]
        for hop in reversed(range(depth)):
            x = found.kernel[hop, a, b] * (chi / 0.9 if hop else 1)
            assert found.gradient[hop, a, b] / n**2 == pytest.approx(tied * x, rel=1e-5)
            assert found.gradient_untied[hop, a, b] / n**2 == pytest.approx(untied * x, rel=1e-5)
            response = (0.9 * on.first) ** (depth - 1 - hop)
            tied = chi * tied + 0.81 * m4 * response**2 * found.kernel[hop, a, b]
            untied = chi * untied
    if (
        masks == "independent"
    ):  # chi_1 = 1: S_aa grows by 1 a layer, 23.9 at layer 1 (independently)
        assert found.gradient[0, 0, 0] / n**2 == pytest.approx(23.9, rel=1e-5)


def test_the_correction_is_one_over_n():
    """(E G/n^2 - limit) halves when the width doubles, to the next order: (L/n) of itself."""
    layers = behind_raw_input(6, linear(0.9, 0.2))
    values = [
        linear_moments(layers, [n] * 7, eps=0.4).gradient[0] / n**2 for n in (400, 800, 1600, 10**8)
    ]
    first, second, third = (x - values[-1] for x in values[:-1])
    assert first / second == pytest.approx(np.full((2, 2), 2.0), rel=0.05)
    assert second / third == pytest.approx(np.full((2, 2), 2.0), rel=0.025)


def test_means_are_those_of_the_maps():
    """The kernel's mean has no correction: each hop is ``skip^2 + sigma_w^2 x``, plus bias."""
    layers = [linear(0.8, 0.2, sigma_b=0.3, skip=0.5), linear(1.1, 0.4, "clean", skip=0.2)]
    found = linear_moments(layers, [7, 7, 7], q1=1.0, q2=2.0, eps=0.3)
    state = (1.0, 2.0, 0.3)
    for depth, layer in enumerate(layers, start=1):
        state = tuple(float(x) for x in layer.pair_map(*state))
        q1, q2, eps = state
        cross = math.sqrt(q1 * q2) * (1 - eps)
        assert found.kernel[depth] == pytest.approx(np.array([[q1, cross], [cross, q2]]))


def test_a_pinned_and_a_drawn_start():
    """Behind a clean hop, both differ by the scatter of n_0 Gaussian units and nothing else."""
    layers, widths = [linear(0.9, 0.0), linear(0.9, 0.3)], [5, 4, 3]
    pinned, drawn = (
        linear_moments(layers, widths, eps=0.5, start=start) for start in ("pinned", "drawn")
    )
    assert np.all(pinned.kernel_covariance[0] == 0)
    assert drawn.kernel_covariance[0, 0, 0, 0, 0] == pytest.approx(2 / 5)
    assert drawn.kernel == pytest.approx(pinned.kernel)
    assert np.all(drawn.gradient[:, 0, 0] > pinned.gradient[:, 0, 0])


# Explicit weights --------------------------------------------------------------------------------


def simulate(layers, widths, vectors, nets, seed, tied=True):
    """``G^l`` (net, hop, 2, 2) and Gram matrices of h^L (net, 2, 2) with weights and backprop."""
    rng = np.random.default_rng(seed)
    h = np.broadcast_to(vectors, (nets, *vectors.shape))
    signals, masks, weights = [], [], []
    for layer, n, m in zip(layers, widths[:-1], widths[1:], strict=True):
        keep = 1 - layer.drop
        mask = (rng.random((nets, 2, n)) < keep) / keep
        if layer.masks == "shared":
            mask = np.repeat(mask[:, :1], 2, axis=1)
        w = rng.standard_normal((nets, m, n)) * layer.sigma_w / math.sqrt(n)
        bias = layer.sigma_b * rng.standard_normal((nets, 1, m))
        masks.append(mask)
        weights.append(w)
        signals.append(mask * h)
        kept = layer.skip * h if layer.skip else 0.0
        h = kept + signals[-1] @ w.transpose(0, 2, 1) + bias
    delta, result = h, []
    for layer, mask, w, x in reversed(list(zip(layers, masks, weights, signals, strict=True))):
        result.append((delta @ delta.transpose(0, 2, 1)) * (x @ x.transpose(0, 2, 1)))
        scale = layer.sigma_w / math.sqrt(x.shape[2])
        back = w if tied else rng.standard_normal(w.shape) * scale
        kept = layer.skip * delta if layer.skip else 0.0
        delta = kept + mask * (delta @ back)
    return np.array(result[::-1]).transpose(1, 0, 2, 3), h @ h.transpose(0, 2, 1)


SIMULATED = {
    "raw, independent": (behind_raw_input(4, linear(0.9, 0.2)), [12, 16, 24, 10, 20]),
    "raw, shared": (behind_raw_input(4, linear(0.8, 0.2, "shared")), [16] * 5),
    "bias and skip": (behind_raw_input(3, linear(0.6, 0.1, sigma_b=0.5, skip=0.6)), [16] * 4),
}
NETS = 10_000


def vectors_of(q1: float, q2: float, eps: float, n: int) -> np.ndarray:
    """Along the diagonal and across it, so that no unit is special."""
    along, across = np.ones(n), np.where(np.arange(n) % 2, -1.0, 1.0)
    second = (1 - eps) * along + math.sqrt(eps * (2 - eps)) * across
    return np.stack([math.sqrt(q1) * along, math.sqrt(q2) * second])


def z_scores(found, sample) -> np.ndarray:
    return (sample.mean(axis=0) - found) / (sample.std(axis=0) / math.sqrt(len(sample)))


@pytest.mark.parametrize("name", SIMULATED)
def test_explicit_weights_agree(name):
    """Means of G and of the products of h^L over 10,000 networks: |z| < 4.5, at most 18 different
    ones a case: by chance 1 of 8,000 seeds (normal tails; G's own are averaged out by then)."""
    layers, widths = SIMULATED[name]
    if "skip" in name:  # a fixed start enters its own skip: the first hop has none here
        layers = [replace(layers[0], skip=0.0), *layers[1:]]
    found = linear_moments(layers, widths, q1=1.0, q2=1.5, eps=0.4)
    g, end = simulate(layers, widths, vectors_of(1.0, 1.5, 0.4, widths[0]), NETS, 11)
    assert np.abs(z_scores(found.gradient, g)).max() < 4.5
    products = np.einsum("zij,zkm->zijkm", end, end) / widths[-1] ** 2
    assert np.abs(z_scores(found.kernel_products[-1], products)).max() < 4.5


def test_untied_weights_agree_and_are_refused_by_the_tied_theory():
    """Negative control: the same simulation with fresh weights backwards is another law."""
    layers, widths = SIMULATED["raw, independent"]
    found = linear_moments(layers, widths, eps=0.4)
    g, _ = simulate(layers, widths, vectors_of(1.0, 1.0, 0.4, widths[0]), NETS, 12, tied=False)
    assert np.abs(z_scores(found.gradient_untied, g)).max() < 4.5
    assert z_scores(found.gradient, g)[0, 0, 0] < -20


# Interface ---------------------------------------------------------------------------------------


def test_the_record_becomes_a_dataset():
    data = linear_moments([linear()] * 2, [4, 5, 6], eps=0.5).to_xarray()
    assert dict(data.sizes)["layer"] == 3
    assert data.gradient.dims == ("hop", "input_1", "input_2")
    assert data.width.values.tolist() == [4, 5, 6]
    assert data.gradient_untied.attrs["long_name"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": [MeanField("tanh", 1.0)] * 2}, "activation tanh: expected identity"),
        ({"layers": [linear(1.0, 0.1, "dropconnect")] * 2}, "dropconnect.*expected noise on units"),
        ({"layers": [linear(1.0, 0.1, "layers")] * 2}, "expected noise on units"),
        ({"widths": [3, 4, 3], "layers": [linear(skip=0.5)] * 2}, "skip = 0.5: expected equal"),
        ({"eps": 2.5}, "eps = 2.5"),
        ({"layers": [linear(1e80)] * 2}, "range of float64"),
    ],
)
def test_bad_input_is_explained(changes, message):
    given = {"layers": [linear()] * 2, "widths": [3, 3, 3], "eps": 0.5}
    given |= changes
    with pytest.raises(InputError, match=message):
        linear_moments(given.pop("layers"), given.pop("widths"), **given)
