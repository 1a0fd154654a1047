"""Where models drop and at which rates, held against the random draws that torch really makes."""

from __future__ import annotations

import copy
import io
import math
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import depthscale as ds
from depthscale.answers import InputError
from dropping_zoo import (
    DROPPING,
    WIDTH,
    Bare,
    Blocks,
    DotProduct,
    DropPath,
    Dropping,
    Functional,
    Held,
    Hidden,
    PathBlock,
    Recomputed,
    RecomputedInside,
    SelfAttention,
    Shared,
    inserted,
    nested,
    transformer,
    vectors,
)

HAND_MADE = "mask made by hand"  # the one model whose rate is unknown, though it draws


class Draws(TorchDispatchMode):
    """Every Bernoulli mask with zeros that a forward pass draws, and its rate.

    It looks below all torch functions, so it shares no code with what is tested.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.masks: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if str(func).startswith("aten.bernoulli"):
            rate = round(1.0 - (args[1] if len(args) > 1 else 0.5), 6)
            if rate > 0.0:
                self.rates.append(rate)
                self.masks.append(out.clone())
        return out


@pytest.fixture(params=DROPPING, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Dropping:
    torch.manual_seed(0)
    return request.param


@pytest.fixture(autouse=True)
def _quiet_compiler() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch._dynamo|torch._inductor")
        yield


def draws(model: nn.Module, inputs: tuple[Any, ...], mode: bool = True) -> Draws:
    """The masks of one forward pass in train mode; compiled parts run as plain Python."""
    bare = getattr(model, "_orig_mod", model)
    before = bare.training
    bare.train(mode)
    with torch.no_grad(), Draws() as seen:
        bare(*inputs)
    bare.train(before)
    return seen


def known(sites: tuple[ds.DropoutSite, ...]) -> list[ds.DropoutSite]:
    """The sites of which a rate is known, whether or not it can be set."""
    return [site for site in sites if site.rate is not None]


def ladder(sites: list[ds.DropoutSite]) -> list[float]:
    """A different rate for each site that can be set, and its own for the others."""
    rates = [round(0.05 + 0.6 * place / len(sites), 6) for place in range(len(sites))]
    return [
        site.rate if site.how == "none" else rate for site, rate in zip(sites, rates, strict=True)
    ]


def schedule(model: nn.Module, sites: tuple[ds.DropoutSite, ...]) -> ds.AppliedSchedule:
    return ds.apply_schedule(model, ladder(known(sites)), known(sites))


def outputs(model: nn.Module, inputs: tuple[Any, ...]) -> list[torch.Tensor]:
    bare = getattr(model, "_orig_mod", model)
    before = bare.training
    bare.eval()
    with torch.no_grad():
        out = bare(*inputs)
    bare.train(before)
    return [out] if isinstance(out, torch.Tensor) else [*out.values()]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


def test_sites_in_order_of_execution(case: Dropping) -> None:
    sites = ds.dropout_sites(case.build(), *case.inputs())
    assert tuple((site.name, site.how, site.calls) for site in sites) == case.sites
    assert all(bool(site.reason) == (site.how == "none") for site in sites)
    if case.kinds:
        assert tuple(site.kind for site in sites) == case.kinds


def test_sites_are_the_draws_of_the_model(case: Dropping) -> None:
    model = case.build()
    sites = ds.dropout_sites(model, *case.inputs())
    expected = [site.rate for site in known(sites) for _ in range(site.calls) if site.rate]
    drawn = draws(model, case.inputs()).rates
    if len(known(sites)) == len(sites):
        assert drawn == pytest.approx(expected) or any(site.calls > 1 for site in sites)
    assert sorted(rate for rate in drawn if case.name != HAND_MADE) == sorted(expected)


def test_finding_sites_leaves_the_model_as_it_was(case: Dropping) -> None:
    model = case.build().eval()
    next(iter(model.modules())).training = True  # a mode that is neither
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    held = [dict(vars(module)) for module in model.modules()]
    hooks = [(*m._forward_hooks.items(), *m._forward_pre_hooks.items()) for m in model.modules()]
    ds.dropout_sites(model, *case.inputs())
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    for module, old in zip(model.modules(), held, strict=True):
        assert vars(module).keys() == old.keys()
    assert hooks == [
        (*m._forward_hooks.items(), *m._forward_pre_hooks.items()) for m in model.modules()
    ]


def test_applied_rates_are_those_that_act(case: Dropping) -> None:
    """The masks have the rates of the schedule, in its order, and the shares of zeros agree.

    A share of n draws errs by sqrt(p (1 - p) / n); five of these, plus one draw for the smallest
    masks, are exceeded about once in two million masks.
    """
    model = case.build()
    sites = ds.dropout_sites(model, *case.inputs())
    with schedule(model, sites) as applied:
        seen = draws(model, case.inputs())
        idle = draws(model, case.inputs(), mode=False)
    expected = {
        rate: site.calls for site, rate in zip(applied.sites, applied.rates, strict=True) if rate
    }
    found = [rate for rate in seen.rates if case.name != HAND_MADE]
    assert list(dict.fromkeys(found)) == list(expected)
    assert {rate: found.count(rate) for rate in found} == expected
    assert idle.rates == []
    for rate, mask in zip(seen.rates, seen.masks, strict=True):
        share, size = float((mask == 0).double().mean()), mask.numel()
        assert abs(share - rate) <= 5 * math.sqrt(rate * (1 - rate) / size) + 1 / size


def test_apply_and_remove_leave_no_trace(case: Dropping) -> None:
    model, inputs = case.build(), case.inputs()
    sites = ds.dropout_sites(model, *inputs)
    before, keys = outputs(model, inputs), list(model.state_dict())
    drawn = draws(model, inputs).rates
    held = [dict(vars(module)) for module in model.modules()]
    state = torch.get_rng_state()
    applied = schedule(model, sites)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(model.state_dict()) == keys
    assert same(outputs(model, inputs), before)
    applied.remove()
    applied.remove()
    assert torch.equal(torch.get_rng_state(), state)
    assert list(model.state_dict()) == keys
    assert same(outputs(model, inputs), before)
    assert [dict(vars(module)) for module in model.modules()] == held
    assert draws(model, inputs).rates == drawn
    assert ds.dropout_sites(model, *inputs) == sites


def test_two_models_of_one_class_are_independent(case: Dropping) -> None:
    first, second = case.build(), case.build()
    sites = ds.dropout_sites(first, *case.inputs())
    before = draws(second, case.inputs()).rates
    with schedule(first, sites):
        wanted = draws(first, case.inputs()).rates
        assert draws(second, case.inputs()).rates == before
        assert ds.dropout_sites(second, *case.inputs()) == sites
        settable = [site for site in sites if site.how != "none"]
        with ds.apply_schedule(second, [0.0] * len(settable), settable):
            gone = sum(site.calls for site in settable if site.rate)
            assert len(draws(second, case.inputs()).rates) == len(before) - gone
            assert draws(first, case.inputs()).rates == wanted


def test_copies_keep_the_rates(case: Dropping) -> None:
    model = getattr(built := case.build(), "_orig_mod", built)
    sites = ds.dropout_sites(model, *case.inputs())
    saved = io.BytesIO()
    with schedule(model, sites):
        wanted = draws(model, case.inputs()).rates
        copied = copy.deepcopy(model)
        torch.save(model, saved)
    loaded = torch.load(io.BytesIO(saved.getvalue()), weights_only=False)
    assert draws(copied, case.inputs()).rates == wanted
    assert draws(loaded, case.inputs()).rates == wanted


def test_other_rates_on_the_same_sites(case: Dropping) -> None:
    model = case.build()
    sites = ds.dropout_sites(model, *case.inputs())
    before = draws(model, case.inputs()).rates
    with schedule(model, sites) as applied:
        wanted = draws(model, case.inputs()).rates
        first = applied.rates
        other = [
            rate if site.how == "none" else round(rate / 2, 6)
            for site, rate in zip(applied.sites, first, strict=True)
        ]
        applied.set(other)
        assert list(applied.rates) == other
        changed = dict(zip(first, other, strict=True))
        assert draws(model, case.inputs()).rates == [changed.get(rate, rate) for rate in wanted]
        applied.set(first)
        assert draws(model, case.inputs()).rates == wanted
    assert draws(model, case.inputs()).rates == before
    with pytest.raises(InputError, match="was removed"):
        applied.set(first)


@pytest.mark.parametrize("found", [True, False])
def test_a_saved_schedule_goes_on_a_fresh_model(case: Dropping, found: bool, tmp_path: Any) -> None:
    """Beside a checkpoint, and with no example input at hand."""
    model, path = case.build(), tmp_path / "rates.json"
    sites = known(ds.dropout_sites(model, *case.inputs()))
    if not sites:
        return
    with schedule(model, tuple(sites)) as applied:
        applied.save(path)
        wanted = draws(model, case.inputs()).rates
    fresh = case.build()
    if found:
        ds.dropout_sites(fresh, *case.inputs())
    with ds.apply_schedule(fresh, path) as again:
        assert again.rates == applied.rates
        assert [site.name for site in again.sites] == [site.name for site in sites]
        assert draws(fresh, case.inputs()).rates == wanted
    assert os.listdir(tmp_path) == ["rates.json"]


def test_names_decide_where_the_rates_of_a_schedule_go() -> None:
    model = nested()
    plan = ds.Schedule([0.5, 0.3, 0.4], ["1", "0.0.1.1", "0.1.1.1"])
    with ds.apply_schedule(model, plan) as applied:
        assert draws(model, vectors()).rates == [0.3, 0.4, 0.5]
        applied.set(plan.mirrored())
        assert draws(model, vectors()).rates == [0.3, 0.5, 0.4]
        applied.set([0.1, 0.2, 0.3])  # without names, in the order of its sites
        assert draws(model, vectors()).rates == [0.2, 0.3, 0.1]
    with ds.apply_schedule(model, dict(zip(plan.sites, plan.rates, strict=True))):
        assert draws(model, vectors()).rates == [0.3, 0.4, 0.5]
    with ds.apply_schedule(model, plan, ["0.1.1.1"]) as applied:
        assert applied.rates == (0.4,)
    assert applied.schedule.sites == ("0.1.1.1",)


@pytest.mark.parametrize("found", [True, False])
def test_a_schedule_of_other_sites_is_refused_with_the_difference(
    found: bool, tmp_path: Any
) -> None:
    model, path = nested(), tmp_path / "rates.json"
    sites = ds.dropout_sites(model, *vectors())
    with ds.apply_schedule(model, [0.1, 0.2], sites[1:]) as applied:
        applied.save(path)
    deeper = nn.Sequential(*nested(), nn.Dropout(0.2), nn.Dropout(0.3))
    if found:
        ds.dropout_sites(deeper, torch.randn(3, WIDTH))
    with pytest.raises(InputError, match=r"3 only in the model \('0.0.1.1', '3', '4'\)"):
        ds.apply_schedule(deeper, path)
    with ds.apply_schedule(deeper, path, ds.Schedule.load(path).sites) as applied:
        assert applied.rates == (0.1, 0.2)
    other = Shared()
    if found:
        ds.dropout_sites(other, *vectors())
    message = r"2 only in the schedule \('0.1.1.1', '1'\); 1 only in the model \('drop'\)"
    with pytest.raises(InputError, match=message):
        ds.apply_schedule(other, path)
    with pytest.raises(InputError, match=r"no rate for '0.0.1.1'; it names '0.1.1.1', '1'"):
        ds.apply_schedule(nested(), path, ["0.0.1.1", "1"])
    with pytest.raises(InputError, match="unknown site 'nowhere'"):
        ds.apply_schedule(nested(), [0.1], ["nowhere"])
    ds.apply_schedule(other, [0.1], ["drop"]).remove()  # and nothing is left behind


def test_files_that_hold_no_schedule(tmp_path: Any) -> None:
    model, path = nested(), tmp_path / "rates.json"
    ds.dropout_sites(model, *vectors())
    with ds.apply_schedule(model, [0.1, 0.2, 0.3]) as applied:
        applied.save(path)
        text = path.read_text()
        with pytest.raises(InputError, match="cannot be written"):
            applied.save(tmp_path / "none" / "rates.json")
    for cut in range(len(text) - 1):
        path.write_text(text[:cut])
        with pytest.raises(InputError, match=r"rates.json holds no schedule, or one that was cut"):
            ds.apply_schedule(model, str(path))
    path.write_bytes(b"\x80\x81")
    with pytest.raises(InputError, match="holds no schedule"):
        ds.apply_schedule(model, path)
    with pytest.raises(InputError, match=r"'none.json' cannot be read: No such file"):
        ds.apply_schedule(model, "none.json")
    path.write_text('{"format": "depthscale-schedule", "version": 1, "rates": [0.1, 0.2, 0.3]}')
    with ds.apply_schedule(model, path):  # as an earlier version wrote it: no names
        assert draws(model, vectors()).rates == [0.1, 0.2, 0.3]


def test_a_model_in_eval_mode_is_warned_of() -> None:
    model = nested().eval()
    ds.dropout_sites(model, *vectors())
    with pytest.warns(UserWarning, match=r"only after model.train\(\)") as warned:
        applied = ds.apply_schedule(model, [0.1, 0.2, 0.3])
    assert warned[0].filename == __file__
    assert draws(model, vectors(), mode=False).rates == []
    model.train()
    assert draws(model, vectors()).rates == [0.1, 0.2, 0.3]
    applied.remove()
    model.eval()[0].train()  # a part that is trained
    ds.apply_schedule(model, [0.1, 0.2, 0.3]).remove()


def test_a_single_site() -> None:
    model = nn.Dropout(0.1)
    ds.dropout_sites(model, *vectors())
    with ds.apply_schedule(model, [0.4]) as applied:
        assert draws(model, vectors()).rates == [0.4]
        assert str(applied.schedule) == "p  0.4  " + "#" * 40


def test_hooks_on_a_part_of_compiled_code_are_noticed() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Identity(), Always())
    compiled = torch.compile(model, backend="eager")
    assert float((compiled(torch.ones(200_000)) == 0).double().mean()) < 0.21
    ds.dropout_sites(compiled, torch.ones(8))
    with ds.apply_schedule(compiled, [0.5]):
        assert float((compiled(torch.ones(200_000)) == 0).double().mean()) > 0.49
    assert float((compiled(torch.ones(200_000)) == 0).double().mean()) < 0.21


def test_rates_that_change_under_compiled_code() -> None:
    torch._dynamo.reset()
    model = Mixed().train()
    compiled = torch.compile(model, backend="eager")
    ds.dropout_sites(compiled, torch.ones(8))
    with ds.apply_schedule(compiled, [0.5, 0.6, 0.7]) as applied:
        for rates in ([0.5, 0.6, 0.7], [0.15, 0.0, 0.35], [0.8, 0.7, 0.9]):
            applied.set(rates)
            assert rates == shares(compiled)
    assert shares(compiled) == [0.3, 0.1, 0.2]


def test_under_distributed_data_parallel(tmp_path: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model = inserted(Bare(), vectors())
        wrapped = nn.parallel.DistributedDataParallel(model)
        sites = ds.dropout_sites(wrapped, *vectors())
        keys = list(wrapped.state_dict())
        with ds.apply_schedule(wrapped, ladder([*sites])) as applied:
            assert set(draws(wrapped, vectors()).rates) == set(applied.rates) - {0.0}
            wrapped(*vectors()).sum().backward()
            assert list(wrapped.state_dict()) == keys
            with pytest.raises(InputError, match="already"):
                ds.apply_schedule(model, [0.1] * len(sites))
        assert all(parameter.grad is not None for parameter in model.parameters())
    finally:
        dist.destroy_process_group()


class Planned:
    """Stands for a schedule: an object with an attribute ``rates``."""

    rates = (0.3, 0.4, 0.5)


def test_an_object_with_rates_names_and_a_chosen_site() -> None:
    model = nested()
    sites = ds.dropout_sites(model, *vectors())
    with ds.apply_schedule(model, Planned()) as applied:
        assert draws(model, vectors()).rates == [0.3, 0.4, 0.5] == list(applied.rates)
    with ds.apply_schedule(model, torch.tensor([0.25]), ["0.1.1.1"]):
        assert draws(model, vectors()).rates == [0.1, 0.25]
    with ds.apply_schedule(model, [0.25], sites[:1]):
        assert draws(model, vectors()).rates == [0.25, 0.2]
    again = nested()  # sites belong to any model of that build
    with ds.apply_schedule(again, [0.25], sites[:1]):
        assert draws(again, vectors()).rates == [0.25, 0.2]


@pytest.mark.parametrize("build", [nested, Functional, Held, SelfAttention, transformer])
def test_restored_after_an_exception(build: Any) -> None:
    model = build()
    inputs = vectors() if build not in (SelfAttention, transformer) else (torch.randn(4, 6, WIDTH),)
    sites = ds.dropout_sites(model, *inputs)
    with (
        pytest.raises((RuntimeError, AssertionError)),
        ds.apply_schedule(model, ladder(known(sites))),
    ):
        model(torch.randn(3, WIDTH + 1))  # the forward fails, inside of what is intercepted
    assert ds.dropout_sites(model, *inputs) == sites
    assert draws(model, inputs).rates == draws(build(), inputs).rates
    assert not torch.overrides._get_current_function_mode_stack()


def test_a_failed_forward_leaves_the_schedule_in_force() -> None:
    model = Functional()
    ds.dropout_sites(model, *vectors())
    with ds.apply_schedule(model, [0.11, 0.12, 0.13, 0.14, 0.15]):
        with pytest.raises(RuntimeError):
            model(torch.randn(3, WIDTH + 1))
        assert draws(model, vectors()).rates == [0.11, 0.12, 0.13, 0.14, 0.15]


ERRORS = [
    ([0.1, 0.2], None, "2 rates for 3 sites"),
    ([0.1] * 4, None, "4 rates for 3 sites"),
    ([0.1, 1.0, 0.1], None, r"rate 1 at position 1 .*\[0, 1\)"),
    ([0.1, -0.1, 0.1], None, "rate -0.1"),
    ([0.1, math.nan, 0.1], None, "rate nan"),
    (0.1, None, "sequence of numbers"),
    ([0.1, "a", 0.1], None, "sequence of numbers"),
    ([0.1], ["0.1.1"], r"unknown site '0.1.1'.*such as '0.1.1.1'"),
    ([0.1, 0.1], ["1", "1"], "given 2 times"),
]


@pytest.mark.parametrize(("rates", "sites", "message"), ERRORS)
def test_errors_say_what_was_given_and_change_nothing(rates: Any, sites: Any, message: str) -> None:
    model = nested()
    ds.dropout_sites(model, *vectors())
    with pytest.raises(InputError, match=message):
        ds.apply_schedule(model, rates, sites)
    assert draws(model, vectors()).rates == [0.1, 0.2]
    ds.apply_schedule(model, [0.1] * 3).remove()  # and it can still be scheduled


def test_errors_of_models_and_sites() -> None:
    model = nested()
    with pytest.raises(InputError, match="call dropout_sites"):
        ds.apply_schedule(model, [0.1])
    with pytest.raises(InputError, match=r"expected a torch.nn.Module"):
        ds.apply_schedule(nn.Linear, [0.1])
    with pytest.raises(InputError, match="cannot run these inputs"):
        ds.dropout_sites(model, torch.randn(2, 3))
    with pytest.raises(InputError, match=r"expected a torch.nn.Module"):
        ds.dropout_sites(nn.Linear, torch.randn(2, 3))
    sites = ds.dropout_sites(model, *vectors())
    with pytest.raises(InputError, match="not one of this"):
        ds.apply_schedule(Functional(), [0.1] * 3, sites)
    applied = ds.apply_schedule(model, [0.1] * 3)
    with pytest.raises(InputError, match="is already scheduled"):
        ds.apply_schedule(model, [0.1], sites[:1])
    with pytest.raises(InputError, match="shares modules"):
        ds.apply_schedule(nn.Sequential(*model), [0.1] * 3, sites)
    applied.remove()


def test_a_site_that_cannot_be_set_takes_its_own_rate_only() -> None:
    model = nn.Sequential(*(PathBlock(rate) for rate in (0.0, 0.1, 0.2)))
    sites = ds.dropout_sites(model, *vectors())
    assert sites[0].rate == 0.0
    assert "nn.Identity" in str(sites[0])
    ds.apply_schedule(model, [0.0, 0.05, 0.1]).remove()
    with pytest.raises(InputError, match=r"'0.drop_path' cannot be set to 0.1: an nn.Identity"):
        ds.apply_schedule(model, [0.1, 0.1, 0.1])
    inside = RecomputedInside()
    sites = ds.dropout_sites(inside, *vectors())
    with pytest.raises(InputError, match="checkpoints"):
        ds.apply_schedule(inside, [0.1])


def test_a_rate_of_none_comes_back_as_none() -> None:
    model = nn.Sequential(DropPath())
    model[0].drop_prob = None
    model[0].training = False
    assert ds.dropout_sites(model, *vectors())[0].rate == 0.0
    with pytest.warns(UserWarning, match="eval mode"), ds.apply_schedule(model, [0.3]):
        assert draws(model, vectors()).rates == [0.3]
    assert model[0].drop_prob is None


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_under_checkpointing_are_those_without(reentrant: bool) -> None:
    """The recomputation of the backward pass draws the same masks at the same, scheduled rates."""
    model = Recomputed(reentrant)
    x = vectors()[0].requires_grad_()
    ds.dropout_sites(model, x)
    gradients = []
    with ds.apply_schedule(model, [0.5, 0.6, 0.7, 0.4]):
        for run in (model, nn.Sequential(*model.blocks)):
            model.zero_grad()
            torch.manual_seed(5)
            run(x).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert same(*gradients)


@pytest.mark.parametrize("build", [Blocks, nested, Held])
def test_under_autocast_and_in_a_data_parallel_wrapper(build: Any) -> None:
    model = build()
    wrapped = nn.DataParallel(model)
    sites = ds.dropout_sites(wrapped, *vectors())
    assert sites == ds.dropout_sites(model, *vectors())
    with ds.apply_schedule(wrapped, ladder(list(sites))) as applied:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rates = draws(wrapped, vectors()).rates
        assert rates == list(applied.rates)
        with pytest.raises(InputError, match="already"):
            ds.apply_schedule(model, [0.1] * len(sites))


class Mixed(nn.Module):
    """Three copies of the input, dropped by a function, a module, and a function in a module."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.always = nn.Dropout(0.1), Always()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([F.dropout(x, 0.3, self.training), self.drop(x), self.always(x)])


class Always(nn.Module):
    """A functional dropout without a training flag, which drops in eval mode too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.2)


def shares(model: nn.Module) -> Any:
    """Shares of zeros in each row of the output; five standard errors of them are 0.006."""
    zeros = (model(torch.ones(200_000)) == 0).double().mean(dim=1)
    return pytest.approx(zeros.tolist(), abs=0.006)


def test_compiled_models_follow_each_schedule() -> None:
    """Code compiled under other rates, or none, isn't reused, whichever comes first."""
    torch._dynamo.reset()
    model = Mixed().train()
    compiled = torch.compile(model, backend="eager")
    assert shares(compiled) == [0.3, 0.1, 0.2]
    sites = ds.dropout_sites(compiled, torch.ones(8))
    assert [site.how for site in sites] == ["interception", "attribute", "interception"]
    for rates in ([0.5, 0.6, 0.7], [0.15, 0.0, 0.35], [0.8, 0.7, 0.9]):
        with ds.apply_schedule(compiled, rates):
            assert rates == shares(compiled)
    assert shares(compiled) == [0.3, 0.1, 0.2]
    with ds.apply_schedule(model, [0.5, 0.6, 0.7]):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="eager")
        assert shares(compiled) == [0.5, 0.6, 0.7]
    assert shares(compiled) == [0.3, 0.1, 0.2]


def test_compiled_modules_with_held_rates_stay_whole_graphs() -> None:
    torch._dynamo.reset()
    graphs = []

    def backend(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(nested().train(), backend=backend, fullgraph=True)
    ds.dropout_sites(compiled, *vectors())
    compiled(*vectors())
    with ds.apply_schedule(compiled, [0.0, 0.2, 0.2]):
        compiled(*vectors())
        compiled(*vectors())
    assert len(graphs) == 2


def test_functional_dropout_that_is_always_on_keeps_its_ways() -> None:
    """``F.dropout(x, p)`` without a training flag drops in eval mode too: at the rate put on it."""

    model = Always()
    ds.dropout_sites(model, *vectors())
    with ds.apply_schedule(model, [0.4]):
        assert draws(model, vectors(), mode=False).rates == [0.4]
    assert draws(model, vectors(), mode=False).rates == [0.2]


def test_attention_in_eval_mode_does_not_drop_under_a_schedule() -> None:
    model = DotProduct()
    x = torch.randn(4, 6, WIDTH)
    ds.dropout_sites(model, x)
    with ds.apply_schedule(model, [0.3, 0.4]):
        assert draws(model, (x,)).rates == [0.3, 0.4]
        assert draws(model, (x,), mode=False).rates == []


def test_scripted_parts_are_listed_with_the_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = Hidden()
        sites = ds.dropout_sites(model, *vectors())
    assert [(site.name, site.how) for site in sites] == [("drop", "attribute"), ("part", "none")]
    assert "scripted" in sites[1].reason


def test_constant_rates_are_not_mistaken_for_attributes() -> None:
    class Odd(nn.Module):
        def __init__(self, rate: float) -> None:
            super().__init__()
            self.dropout, self.rate = 0.1, rate

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(F.dropout(x, self.rate), self.dropout)

    for rate in torch.linspace(0.0, 0.99, 100).tolist():
        sites = ds.dropout_sites(Odd(rate), *vectors())
        assert [site.how for site in sites] == ["interception", "attribute"]
        assert [site.rate for site in sites] == [rate, 0.1]


def test_threads_do_not_disturb_each_other() -> None:
    """Two models of one class, each scheduled, run in turns of two threads at one time."""
    models = [Mixed(), Mixed()]
    rates = ([0.2, 0.3, 0.4], [0.6, 0.7, 0.8])
    for model, own in zip(models, rates, strict=True):
        ds.dropout_sites(model, torch.ones(8))
        ds.apply_schedule(model, own)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            for own, found in zip(rates, pool.map(shares, models), strict=True):
                assert own == found


def test_paths_of_transformers_draw_their_masks_in_another_way() -> None:
    """Swin's DropPath rounds uniform numbers, which no Bernoulli counter sees: zeros are counted.

    The share of 20,000 branches errs by 0.0035 at most; five of these are allowed.
    """
    from transformers.models.swin.modeling_swin import SwinDropPath

    model = nn.Sequential(SwinDropPath(0.1), nn.Identity())
    sites = ds.dropout_sites(model, torch.ones(4, 3))
    assert [(site.name, site.kind, site.rate) for site in sites] == [("0", "path", 0.1)]
    with ds.apply_schedule(model, [0.4]):
        share = float((model(torch.ones(20_000, 3)) == 0).double().mean())
    assert abs(share - 0.4) < 0.0175
    assert model[0].drop_prob == 0.1
