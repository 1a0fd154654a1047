"""Forms against forty-digit arithmetic, finite differences and their own text."""

from __future__ import annotations

import pickle

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depthscale.answers import InputError
from depthscale.scaling.form import Form, Role
from depthscale.scaling.formula import parse

COLUMNS = ["T", "L", "l", "m"]
RNG = np.random.default_rng(3)
DATA = {
    "T": RNG.uniform(1, 3, 40),
    "L": RNG.choice([8.0, 16.0, 32.0], 40),
    "l": RNG.uniform(1, 9, 40),
}

FORMS = [
    "L^-c2 * F((T - Tc) * L^c1)",
    "m = L^-c2 F((T - Tc) L^c1)",
    "m * L^c2 = F((T - Tc) * L^c1)",
    "y = l^-delta * F((T - sc)*l^b, l*L^-z) * (1 + a*L^-omega)",
    "-G(T**2 * L**-lambda) / L^(a + b*log(L)) / 2",
    "exp(-a*l) * F(tanh(b*T)*sqrt(L + c)/abs(T - d), (l - e)^3)",
    "(L + a)^b * F(-T^2 + a*T)",
    "a^b * (b*L)^(a/2) * F(2^-c * T)",
]


def at(text, values):
    return Form.parse(text, COLUMNS).evaluate(DATA, values)


def some_values(form):
    """Between .3 and .9, so that every base of the forms above is positive."""
    return np.random.default_rng(len(form.text)).uniform(0.3, 0.9, len(form.parameters))


# Values and derivatives ---------------------------------------------------------------------------


def test_values_are_those_of_numpy():
    c2, tc, c1 = 0.125, 2.27, 1.1
    found = at(FORMS[0], [c2, tc, c1])
    np.testing.assert_allclose(found.prefactor, DATA["L"] ** -c2, rtol=1e-14)
    np.testing.assert_allclose(found.arguments[0], (DATA["T"] - tc) * DATA["L"] ** c1, rtol=1e-14)


@pytest.mark.parametrize("text", FORMS)
def test_derivatives_are_those_of_forty_digits(text):
    """Central differences of step 1e-12 at 40 digits err by 1e-24 of the third derivative."""
    form = Form.parse(text, COLUMNS)
    values = some_values(form)
    found = form.evaluate(DATA, values)
    trees = [form.prefactor, *form.arguments]
    values_of = np.array([found.prefactor, *found.arguments])
    slopes_of = np.array([found.d_prefactor, *found.d_arguments])
    for n in (0, 7, 23):
        here = {name: mpmath.mpf(float(DATA[name][n])) for name in form.variables}
        with mpmath.workdps(40):
            known = dict(zip(form.parameters, map(mpmath.mpf, map(float, values)), strict=True))
            for k, tree in enumerate(trees):
                exact = precise(tree, {**here, **known})
                assert values_of[k, n] == pytest.approx(float(exact), rel=1e-13)
                for p, name in enumerate(form.parameters):
                    step = mpmath.mpf("1e-12")
                    up = precise(tree, {**here, **known, name: known[name] + step})
                    down = precise(tree, {**here, **known, name: known[name] - step})
                    slope = float((up - down) / (2 * step))
                    assert slopes_of[k, p, n] == pytest.approx(slope, rel=1e-11, abs=1e-14)


def precise(node, known):
    """The value of a tree by mpmath; NaN-free forms only."""
    parts = [precise(part, known) for part in node.parts]
    if node.kind == "number":
        return mpmath.mpf(node.value)
    if node.kind == "name":
        return known[node.name]
    if node.kind == "call":
        return {"abs": mpmath.fabs}.get(node.name, getattr(mpmath, node.name, None))(*parts)
    return {
        "+": lambda a, b: a + b,
        "-": lambda a, b: a - b,
        "*": lambda a, b: a * b,
        "/": lambda a, b: a / b,
        "^": lambda a, b: a**b,
        "negative": lambda a: -a,
    }[node.kind](*parts)


def test_a_bound_form_is_the_form():
    form = Form.parse(FORMS[3], COLUMNS)
    bound = form.bind(DATA)
    for values in ([0.2, 2, 1, 1.5, 0.3, 0.7], [0.1, 1.8, 0.9, 1.4, -0.3, 0.4]):
        for one, other in zip(bound(values), form.evaluate(DATA, values), strict=True):
            np.testing.assert_array_equal(one, other)


def test_results_of_one_call_outlive_the_next():
    bound = Form.parse(FORMS[0], COLUMNS).bind(DATA)
    first = bound([0.1, 2.0, 1.0])
    kept = [part.copy() for part in first]
    bound([0.7, 1.0, 2.0])
    for part, before in zip(first, kept, strict=True):
        np.testing.assert_array_equal(part, before)


def test_equal_parts_are_computed_once():
    form = Form.parse("L^-c * F(T*L^-c, l*L^-c)", COLUMNS)
    assert [step.kind for step in form.program.steps].count("fitted ^") == 1


def test_a_form_without_prefactor_has_one():
    found = at("F(T*L^b)", [0.5])
    np.testing.assert_array_equal(found.prefactor, 1.0)
    np.testing.assert_array_equal(found.d_prefactor, 0.0)


def test_powers_at_zero_and_below():
    columns = {"T": np.array([-1.0, 0.0, 2.0]), "L": np.ones(3)}
    form = Form.parse("T^b * F(L*T)", COLUMNS)
    found = form.evaluate(columns, [2.0])
    np.testing.assert_array_equal(found.prefactor, [np.nan, 0.0, 4.0])
    np.testing.assert_array_equal(found.d_prefactor[0], [np.nan, 0.0, 4 * np.log(2)])
    below = form.evaluate(columns, [-2.0]).prefactor  # infinite at 0: told as NaN as well
    np.testing.assert_array_equal(below, [np.nan, np.nan, 0.25])
    whole = Form.parse("(T - c)^3 * F(L)", COLUMNS).evaluate(columns, [0.0])
    np.testing.assert_array_equal(whole.prefactor, [-1.0, 0.0, 8.0])
    np.testing.assert_array_equal(whole.d_prefactor[0], [-3.0, 0.0, -12.0])
    root = Form.parse("(T - c)^0.5 * F(L)", COLUMNS).evaluate(columns, [0.0])
    assert np.isnan(root.prefactor[0])
    assert root.prefactor[2] == pytest.approx(np.sqrt(2))


def test_extreme_parameters_give_nan_and_no_warning():
    found = at("L^-c * exp(a*T) * F(T/b, log(T - d))", [1e308, 1e308, 0.0, 1e9])
    assert np.isnan(found.prefactor).all()
    assert np.isnan(found.arguments).all()


# Names --------------------------------------------------------------------------------------------


def test_names_come_in_order_of_appearance():
    form = Form.parse("m * l^z = T^a * F((T - Tc)*L^b) * (1 + c*L^-w)", COLUMNS)
    assert form.parameters == ("z", "a", "Tc", "b", "c", "w")
    assert form.variables == ("l", "T", "L")
    assert (form.measured, form.function) == ("m", "F")
    assert form.linear_parameters == ("c",)


@pytest.mark.parametrize(
    ("text", "linear"),
    [
        ("A*L^-c*F(T*L^b)", ("A",)),
        ("(1 + a*L^-w + b*log(L))*F(T*c)", ("a", "b")),
        ("(1 + a)/(1 + b*L)*F(T*c)", ("a",)),
        ("a^2*a*F(T*c)", ()),
        ("(1 + a*a)*F(T*c)", ()),
        ("a*F(T*a)", ()),
    ],
)
def test_linear_parameters(text, linear):
    assert Form.parse(text, COLUMNS).linear_parameters == linear


def test_roles_say_where_a_parameter_stands():
    roles = Form.parse("A*l^-d * F((sc - T)*l^b, l*L^-(z + w))", COLUMNS).roles
    assert roles["A"] == Role("amplitude")
    assert roles["sc"] == Role("shift", "T")
    assert {roles[name] for name in "dbzw"} == {Role("exponent")}


def test_words_of_python_and_greek_are_names():
    form = Form.parse("λ^-β * F((λ - in)*λ^lambda)", ["λ"])
    assert form.parameters == ("β", "in", "lambda")
    micro, mu = "\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"
    found = Form.parse(f"{mu}^-a * F({mu})", [micro])
    assert found.variables == (micro,)  # the column's own spelling, by which it is found
    assert found.evaluate({micro: [2.0]}, [1.0]).prefactor == [0.5]


@pytest.mark.parametrize(
    ("text", "prefactor"),
    [
        ("m*L^c = F(T)", "1/L^c"),
        ("m/L^c = F(T)", "L^c"),
        ("m*L^c/(1 + a*L) = l*F(T)", "l * (1 + a * L)/L^c"),
        ("-m = L^c*F(T)", "L^c/-1"),
        ("rho*L^c = F(T)", "1/L^c"),
        ("m*a = F(T)", "1/a"),
        ("F(T*a)", "1"),
    ],
)
def test_a_scaled_left_side_moves_over(text, prefactor):
    assert Form.parse(text, COLUMNS).prefactor_text == prefactor


def test_the_measured_column_decides_what_the_left_side_means():
    form = Form.parse("m*n*L^c = F(T)", ["T", "L", "m"], measured="n")
    assert (form.measured, form.parameters, form.variables) == ("n", ("c",), ("m", "L", "T"))


# Reading and writing ------------------------------------------------------------------------------

ATOMS = st.sampled_from(["a", "b", "T", "L", "2", "0.5"])
TREES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/^"), inner).map(lambda t: f"({t[0]}){t[1]}({t[2]})"),
        inner.map(lambda t: f"-({t})"),
        st.tuples(st.sampled_from(["exp", "log", "abs"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TREES, TREES)
def test_what_is_written_is_read_as_the_same_form(factor, argument):
    text = f"({factor}) * c * F(T + ({argument}))"
    form = Form.parse(text, COLUMNS)
    again = Form.parse(str(form), COLUMNS)
    assert again.prefactor == form.prefactor
    assert again.arguments == form.arguments


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="LTFac(),+-*/^=.12 \t~λ²'#[", max_size=30))
def test_any_text_is_a_form_or_bad_input(text):
    try:
        Form.parse(text, COLUMNS)
    except InputError as error:
        lines = str(error).splitlines()
        if len(lines) > 1:  # an empty form has no place to point at
            assert lines[-1].strip() == "^"
            assert lines[-1].index("^") <= len(lines[-2])


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("-x^2", "-(x^2)"),
        ("x^-y^z", "x^(-(y^z))"),
        ("a/b*c", "(a/b)*c"),
        ("a - b - c", "(a - b) - c"),
        ("2x (y) z", "2*x(y)*z"),
        ("x^-a y", "(x^-a)*y"),
        ("x − y · z × 2", "x - y*z*2"),
        ("+x", "x"),
        ("x**2", "x^2"),
        ("1.5e-3x", "0.0015*x"),
    ],
)
def test_signs_bind_as_in_print(text, same):
    assert parse(text).right == parse(same).right


def test_forms_travel_between_processes():
    form = Form.parse(FORMS[3], COLUMNS)
    expected = form.evaluate(DATA, some_values(form))
    again = pickle.loads(pickle.dumps(form))
    assert again == form
    for one, other in zip(again.evaluate(DATA, some_values(form)), expected, strict=True):
        np.testing.assert_array_equal(one, other)


# Bad input: the text, a part of the message, and the caret below the text -------------------------

BAD = [
    ("L^-a *", "not the end", "      ^"),
    ("L^-a * F(T", "never closed", "        ^"),
    ("L^-a * F(T))", "never opened", "           ^"),
    ("L^-a * F()", "expected an argument of F", "         ^"),
    ("L^-a * * F(T)", "not '*'", "       ^"),
    ("L^-a ** F(T)", "in a power", "        ^"),
    ("λ^λ * F(T)) ", "never opened", "          ^"),
    ("ln(L) * F(a*T)", "unknown function ln", "^"),
    ("L^a * F(T) * F(T)", "F occurs twice", "             ^"),
    ("L^a * F(T) * c(T)", "two unknown functions, F and c", "             ^"),
    ("c(T) * F(T)", "two unknown functions, c and F", "^"),
    ("F(a * F(T))", "F inside an argument of F", "      ^"),
    ("exp(F(T*a))", "F inside exp", "    ^"),
    ("1 + F(T*a)", "F in a sum", "    ^"),
    ("a / F(T)", "in a denominator", "    ^"),
    ("a / (L / F(T)) / F", "master function: expected a call", "                 ^"),
    ("F(T*a)^2", "in a power", "^"),
    ("a * L", "no master function", "     ^"),
    ("L * F(a)", "the same at all points", "      ^"),
    ("L * F(T)", "no parameter", "^"),
    ("L(T) * F(a*T)", "L is a column", "^"),
    ("F(T, L, a)", "more than two arguments", "        ^"),
    ("exp(L, T) * F(a*T)", "exp takes one argument", "       ^"),
    ("log * F(a*T)", "log is a function", "^"),
    ("F * F(a*T)", "F is the master function", "^"),
    ("m = m * F(a*T)", "what was measured", "    ^"),
    ("m = n = F(a*T)", "not '='", "      ^"),
    (" = F(a*T)", "not '='", " ^"),
    ("F(a*T) = m", "on the right side", "^"),
    ("m + L = F(a*T)", "expected the measured quantity", "^"),
    ("L^1/nu * F(T)", "write ^(1/...)", "  ^"),
    ("a/2 L * F(T)", "product or divisor", "    ^"),
    ("L[0] * F(T)", "'['", " ^"),
    ("L.x * F(T)", "'.'", " ^"),
    ("'L' * F(T)", '"\'"', "^"),
    ("L < a * F(T)", "'<'", "  ^"),
    ("L^a # F(T)", "'#'", "    ^"),
    ("L² * F(a*T)", "write powers as ^2", " ^"),
    ("L^1e999 * F(a*T)", "too large", "  ^"),
    ("2 3 * F(a*T)", "expected an operator", "  ^"),
    ("(T, L) * F(a*T)", "not ','", "  ^"),
    ("lambda T: F(T)", "':'", "        ^"),
    ("\n L ^ $ * F(T)", "'$'", "      ^"),
]


@pytest.mark.parametrize(("text", "message", "caret"), BAD)
def test_bad_formulas_are_refused_at_their_place(text, message, caret):
    with pytest.raises(InputError) as caught:
        Form.parse(text, COLUMNS)
    said, shown, place = str(caught.value).split("\n")
    assert message in said
    assert shown[2:] == text.replace("\n", " ")
    assert place[2:] == caret


def test_another_column_on_the_left_is_refused():
    with pytest.raises(InputError, match="T is another column than m"):
        Form.parse("T = L^a * F(L)", COLUMNS, measured="m")


@pytest.mark.parametrize("text", ["", "  ", 7, None])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(InputError, match="expected a formula such as"):
        Form.parse(text, COLUMNS)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "-" * 5000 + "F(T)", "+".join("a" * 5000), "a" + "^a" * 5000]
)
def test_no_formula_exhausts_the_stack(text):
    with pytest.raises(InputError):
        Form.parse(text, COLUMNS)


@pytest.mark.parametrize("middle", ["-" * 230, "+a" * 110, "^a" * 110, "/a" * 110])
def test_long_formulas_are_read_and_evaluated(middle):
    text = f"({middle}L) * F(T)" if middle[0] == "-" else f"(L{middle}) * F(a*T)"
    if middle[0] == "-":
        text = text.replace("F(T)", "F(a*T)")
    assert at(text, [0.9]).prefactor.shape == (40,)


def test_bad_values_and_columns_are_refused():
    form = Form.parse(FORMS[0], COLUMNS)
    with pytest.raises(InputError, match="expected 3"):
        form.evaluate(DATA, [1.0, 2.0])
    with pytest.raises(InputError, match="no column 'L'"):
        form.evaluate({"T": [1.0]}, [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="equal lengths"):
        form.evaluate({"T": [1.0], "L": [1.0, 2.0]}, [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="expected a list of names"):
        Form.parse(FORMS[0], "TL")
