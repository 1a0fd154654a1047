"""What is given to the theory of finite widths is checked in one place, for all that take it."""

import math

import pytest

from depthscale.answers import InputError
from depthscale.theory.finite_width import finite_width
from depthscale.theory.gradients import predict_gradients
from depthscale.theory.linear import linear_moments
from depthscale.theory.meanfield import MeanField

TAKERS = [finite_width, linear_moments, predict_gradients]
DRAWN = TAKERS[:2]  # those that ask how layer 0 is drawn
LINEAR = MeanField("identity", 1.0)


@pytest.mark.parametrize("take", TAKERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": []}, "no layers were given"),
        ({"widths": [3, 3]}, "2 widths for 2 hops: expected 3"),
        ({"widths": [3, 0, 3]}, "widths holds 0; expected whole numbers"),
        ({"widths": [3, 2.5, 3]}, "widths holds 2.5"),
        ({"widths": [3, math.inf, 3]}, "widths holds inf"),
        ({"widths": [3, "x", 3]}, "widths is 'x'; expected a number"),
        (
            {"layers": [LINEAR, MeanField("identity", 1.0, skip=0.5)], "widths": [3, 3, 4]},
            "hop 1 has skip = 0.5: expected equal widths on its two sides, not 3 and 4",
        ),
        ({"q1": 0.0}, "q1 = 0.0: expected a finite mean square"),
        ({"q2": math.inf}, "q2 = inf"),
        ({"q2": math.nan}, "q2 = nan"),
        ({"eps": -0.1}, "eps = -0.1: expected 1 - cos"),
        ({"eps": "half"}, "eps is 'half'; expected a number"),
    ],
)
def test_refused_by_all(take, change, message):
    given = {"layers": [LINEAR] * 2, "widths": [3, 3, 3], "eps": 0.5, **change}
    with pytest.raises(InputError, match=message):
        take(given.pop("layers"), given.pop("widths"), **given)


@pytest.mark.parametrize("take", DRAWN)
def test_layer_0_is_pinned_or_drawn(take):
    with pytest.raises(InputError, match="expected one of pinned, drawn"):
        take([LINEAR], [3, 3], eps=0.5, start="fixed")
    with pytest.raises(InputError, match="two vectors with one unit"):
        take([LINEAR], [1, 3], eps=0.5)
    take([LINEAR], [1, 3], eps=2.0)
    take([LINEAR], [1, 3], eps=0.5, start="drawn")
