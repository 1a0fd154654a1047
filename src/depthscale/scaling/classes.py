"""Universality classes by their exponents, each number with its uncertainty and source.

Where the literature states a spread of values, the uncertainty is that spread. What is derived here
says from what. Tests hold all numbers of a class against the scaling relations.
"""

from __future__ import annotations

from depthscale.answers import InputError
from depthscale.scaling.class_records import EXPONENTS, Exponent, ExponentClass

__all__ = ["EXPONENTS", "UNIVERSALITY", "ExponentClass", "exponent_class"]


def _exact(source: str, **values: float) -> dict[str, Exponent]:
    return {name: Exponent(value, 0.0, source) for name, value in values.items()}


def _about(source: str, **values: tuple[float, float]) -> dict[str, Exponent]:
    return {name: Exponent(*pair, source) for name, pair in values.items()}


_JENSEN = "Jensen 1999, J. Phys. A 32, 5233"
_VOIGT = "Voigt & Ziff 1997, Phys. Rev. E 56, R6241"
_TWO = "Grassberger & Zhang 1996, Physica A 224, 169, as in Hinrichsen 2000, Adv. Phys. 49, 815"
_THREE = "Jensen 1992, Phys. Rev. A 45, R563, as in Hinrichsen 2000, Adv. Phys. 49, 815"
_REVIEW = "Hinrichsen 2000, Adv. Phys. 49, 815"
_RESPONSE = "beta/(nu_par + d nu_perp - beta)"
_PARITY = "Grassberger 2025 and Park 2013"
_SHORTEST = "Zhou, Yang, Deng & Ziff 2012, Phys. Rev. E 86, 061101"
_UPPER = (
    "1.10(5) of Tu, Grinstein & Muñoz 1997, Phys. Rev. Lett. 78, 274, to 1.184(10) of Kissinger et"
    " al. 2005, J. Stat. Mech. P06002"
)
_LOWER = (
    ".215(15) of Muñoz & Hwa 1998, Europhys. Lett. 41, 147, to .228(5) of Kissinger et al. 2005, J."
    " Stat. Mech. P06002"
)
_MAP = "derived here from eps' = h + (1 + t) eps - a eps^kappa"
_NOISE = "derived here: noise sqrt(Gamma/n) eps adds up to order 1 after l ~ n layers"
_GRINSTEIN = "Grinstein, Muñoz & Tu 1996, Phys. Rev. Lett. 76, 4376 (exact, by KPZ)"

UNIVERSALITY: tuple[ExponentClass, ...] = (
    ExponentClass(
        "directed percolation",
        1,
        {
            **_about(
                _JENSEN,
                beta=(0.276486, 8e-6),
                nu_par=(1.733847, 6e-6),
                nu_perp=(1.096854, 4e-6),
                delta=(0.159464, 6e-6),
                z=(1.580745, 10e-6),
                theta=(0.313686, 8e-6),
                survival=(0.159464, 6e-6),
            ),
            **_about(f"{_RESPONSE}, with {_JENSEN}", field=(0.108249, 4e-6)),
        },
        hyperscaling="absorbing",
        aliases=("DP",),
    ),
    ExponentClass(
        "directed percolation",
        2,
        {
            **_about(_TWO, beta=(0.584, 0.004), nu_par=(1.295, 0.006), nu_perp=(0.734, 0.004)),
            **_about(
                _VOIGT,
                delta=(0.4505, 0.001),
                z=(1.766, 0.0016),
                theta=(0.2295, 0.001),
                survival=(0.4505, 0.001),
            ),
            **_about(f"{_RESPONSE}, with {_TWO}", field=(0.268, 0.004)),
        },
        hyperscaling="absorbing",
        aliases=("DP",),
    ),
    ExponentClass(
        "directed percolation",
        3,
        {
            **_about(
                _THREE,
                beta=(0.81, 0.01),
                nu_par=(1.105, 0.005),
                nu_perp=(0.581, 0.005),
                delta=(0.732, 0.004),
                z=(1.90, 0.01),
                theta=(0.114, 0.004),
                survival=(0.732, 0.004),
            ),
            **_about(f"{_RESPONSE}, with {_THREE}", field=(0.398, 0.008)),
        },
        hyperscaling="absorbing",
        aliases=("DP",),
    ),
    ExponentClass(
        "mean-field directed percolation",
        None,
        {
            **_exact(
                _REVIEW, beta=1, nu_par=1, nu_perp=0.5, delta=1, z=2, theta=0, survival=1, field=0.5
            ),
            **_exact("derived here: noise sqrt(eps/N) balances eps^2 after ~ sqrt(N)", cutoff=0.5),
        },
        note="above 4 dimensions, or where every site sees all others",
        aliases=("mean-field DP",),
    ),
    ExponentClass(
        "compact directed percolation",
        1,
        _exact(
            "Essam 1989, J. Phys. A 22, 4927 (exact)",
            beta=0,
            nu_par=2,
            nu_perp=1,
            delta=0,
            z=2,
            theta=0,
            survival=0.5,
        ),
        note="two symmetric absorbing states without noise inside domains; the order parameter"
        " jumps",
        hyperscaling="absorbing",
        aliases=("CDP", "voter 1+1", "Glauber-Ising 1+1"),
    ),
    ExponentClass(
        "parity-conserving",
        1,
        {
            **_about(
                "Grassberger 2025, arXiv:2512.02241, 1.000; the uncertainty spans the 1.020(5) of"
                " earlier work that is cited there",
                beta=(1.0, 0.02),
            ),
            **_about(
                "Park 2013, J. Korean Phys. Soc. 62, 469; 2/7 and 7/4 were conjectured by Jensen"
                " 1994, Phys. Rev. E 50, 3623",
                delta=(0.2872, 0.001),
                z=(1.7415, 0.003),
                survival=(0.2872, 0.001),
            ),
            **_about(f"beta/delta, with {_PARITY}", nu_par=(3.482, 0.07)),
            **_about(f"beta/(delta z), with {_PARITY}", nu_perp=(1.999, 0.04)),
            **_exact("Jensen 1994, Phys. Rev. E 50, 3623 (even sector)", theta=0),
        },
        note="one-dimensional, with Z2-symmetric absorbing states or parity; the older estimates"
        " beta .92(2), nu_par 3.22(6), nu_perp 1.83(3) are superseded",
        hyperscaling="absorbing",
        aliases=("DP2", "directed Ising", "PC"),
    ),
    ExponentClass(
        "voter",
        2,
        _exact(
            "Dornic, Chaté, Chave & Hinrichsen 2001, Phys. Rev. Lett. 87, 045701",
            beta=0,
            nu_par=1,
            nu_perp=0.5,
            delta=0,
            z=2,
            theta=0,
            survival=1,
        ),
        note="with logarithms: interfaces decay as 1/log t, so that measured exponents drift",
        hyperscaling="absorbing",
    ),
    ExponentClass(
        "mean-field tricritical percolation",
        None,
        _exact(
            "Ohtsuki & Keyes 1987, Phys. Rev. A 35, 2697; Lübeck 2006, J. Stat. Phys. 123, 193",
            beta=0.5,
            nu_par=1,
            nu_perp=0.5,
            delta=0.5,
            z=2,
            field=1 / 3,
        ),
        note="above 3 dimensions; the map with kappa = 3",
        aliases=("TDP", "mean-field tricritical DP"),
    ),
    ExponentClass(
        "conserved directed percolation",
        1,
        {
            **_about(
                "Ferrero, Bustingorry & Kolton 2013, Phys. Rev. E 87, 032122 (depinning of a"
                " string, the same class: Le Doussal & Wiese 2015, Phys. Rev. Lett. 114, 110601)",
                beta=(0.245, 0.006),
                nu_perp=(1.333, 0.007),
                z=(1.433, 0.007),
            )
        },
        note="Manna sandpiles, with a conserved field; rationals are conjectured: z = 10/7, beta ="
        " 5/21, nu_perp = 4/3; decays depend on how the conserved field is prepared, and this is"
        " from a homogeneous one",
        aliases=("Manna", "C-DP"),
    ),
    ExponentClass(
        "conserved directed percolation",
        2,
        {
            **_about(
                "Lübeck 2004, Int. J. Mod. Phys. B 18, 3977",
                beta=(0.639, 0.009),
                nu_perp=(0.799, 0.014),
                nu_par=(1.225, 0.029),
                z=(1.533, 0.024),
            ),
        },
        note="Manna sandpiles, with a conserved field; delta is that of a homogeneous one",
        aliases=("Manna", "C-DP"),
    ),
    ExponentClass(
        "dynamical percolation",
        2,
        {
            **_exact(
                "Nienhuis 1982, Phys. Rev. Lett. 49, 1062 (exact)", beta=5 / 36, nu_perp=4 / 3
            ),
            **_about(_SHORTEST, z=(1.13077, 2e-5)),
            **_about(f"nu_perp z, with {_SHORTEST}", nu_par=(1.50769, 3e-5)),
            **_about(f"beta/(nu_perp z), with {_SHORTEST}", survival=(0.092120, 2e-6)),
            **_about(f"d/z - 2 survival - 1, with {_SHORTEST}", theta=(0.58446, 4e-5)),
        },
        note="spreading where a site is active only once; beta is of the share that was ever"
        " reached",
        hyperscaling="dynamical",
        aliases=("DyP", "general epidemic process"),
        decays=False,
    ),
    ExponentClass(
        "multiplicative noise MN1",
        1,
        {
            **_exact(_GRINSTEIN, nu_par=1.5, nu_perp=1, z=1.5),
            **_about(_UPPER, delta=(1.16, 0.04)),
            **_about(f"3/2 delta, with {_UPPER}; Tu et al. have 1.70(5)", beta=(1.74, 0.06)),
        },
        note="noise proportional to the order parameter: KPZ interfaces bounded by a wall, and"
        " synchronisation of extended chaotic systems",
        aliases=("MN1", "bounded KPZ"),
    ),
    ExponentClass(
        "multiplicative noise MN2",
        1,
        {
            **_exact(_GRINSTEIN, nu_par=1.5, nu_perp=1, z=1.5),
            **_about(_LOWER, delta=(0.225, 0.01)),
            **_about(f"3/2 delta, with {_LOWER}", beta=(0.338, 0.015)),
        },
        note="as MN1, with the wall on the other side of the interface",
        aliases=("MN2",),
    ),
    ExponentClass(
        "multiplicative noise without space",
        0,
        _exact(
            "Schenzle & Brand 1979, Phys. Rev. A 20, 1628; infinite-noise criticality in Vojta &"
            " Hoyos 2015, EPL 112, 30002",
            beta=1,
            nu_par=2,
            delta=0.5,
        ),
        note="a network of finite width deeper than it is wide: the logarithm of the order"
        " parameter is a random walk; these are of its mean, the median falls faster than any"
        " power",
    ),
    ExponentClass(
        "smooth network",
        0,
        {
            **_exact(_MAP, beta=1, nu_par=1, delta=1, field=0.5),
            **_exact(_NOISE, cutoff=1),
        },
        note="kappa = 2: a wide network with a smooth activation, shallower than it is wide; only"
        " cutoff tells it from mean-field directed percolation",
    ),
    ExponentClass(
        "kinked network",
        0,
        {
            **_exact(_MAP, beta=2, nu_par=1, delta=2, field=2 / 3),
            **_exact(_NOISE, cutoff=1),
        },
        note="kappa = 3/2: a wide network with a kinked activation, shallower than it is wide",
    ),
    ExponentClass(
        "Ising",
        2,
        {
            **_exact("Onsager 1944; Yang 1952, Phys. Rev. 85, 808 (exact)", beta=1 / 8, nu_perp=1),
            **_about("Nightingale & Blöte 2000, Phys. Rev. B 62, 1089", z=(2.1667, 0.0005)),
            **_exact("Onsager 1944 (exact)", field=1 / 15),
        },
        note="an equilibrium transition, with the dynamics of model A",
        equilibrium=True,
    ),
    ExponentClass(
        "Ising",
        3,
        {
            **_about(
                "Kos, Poland, Simmons-Duffin & Vichi 2016, JHEP 08, 036",
                beta=(0.326419, 3e-6),
                nu_perp=(0.629971, 4e-6),
                field=(0.208775, 3e-6),
            ),
            **_about("Hasenbusch 2020, Phys. Rev. E 101, 022126", z=(2.0245, 0.0015)),
        },
        note="an equilibrium transition, with the dynamics of model A",
        equilibrium=True,
    ),
    ExponentClass(
        "percolation",
        3,
        _about(
            "Wang, Zhou, Zhang, Garoni & Deng 2013, Phys. Rev. E 87, 052107",
            beta=(0.4181, 0.0006),
            nu_perp=(0.8764, 0.0012),
        ),
        note="static",
        equilibrium=True,
    ),
)
"""The classes that measured exponents are held against."""


def exponent_class(name: str, dimension: int | None = None) -> ExponentClass:
    """The class of this name or alias; ``dimension`` where there are several.

    ``InputError`` where there is none, or more than one.
    """
    wanted = str(name).lower()
    found = [
        c
        for c in UNIVERSALITY
        if wanted in (c.name.lower(), c.label.lower(), *(alias.lower() for alias in c.aliases))
        and (dimension is None or c.dimension == dimension)
    ]
    if len(found) == 1:
        return found[0]
    labels = ", ".join(c.label for c in (found or UNIVERSALITY))
    what = "is several classes; give the dimension" if found else "is not in the table"
    raise InputError(f"{name!r} {what}: {labels}")
