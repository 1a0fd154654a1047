"""Rates that change as training goes on: by hand, in Lightning's trainer and in Hugging Face's."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import depthscale as ds
from depthscale.answers import InputError
from dropping_zoo import WIDTH, Functional, PathBlock, nested, vectors
from test_dropping import draws

RATES = (0.1, 0.2, 0.4)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        for module in ("lightning", "transformers", "accelerate", "torch"):
            warnings.filterwarnings("ignore", module=module)
        yield


def found(model: nn.Module | None = None) -> nn.Module:
    model = nested() if model is None else model
    ds.dropout_sites(model, *vectors())
    return model


def course(model: nn.Module, steps: int, *args: Any, **options: Any) -> list[float]:
    """The largest rate in force at each step, and after the last."""
    with ds.DropoutScheduler(model, RATES, steps, *args, **options) as scheduler:
        seen = [max(scheduler.rates)]
        for _ in range(steps):
            scheduler.step()
            seen.append(max(scheduler.rates))
    return seen


COURSES = [
    ({}, [0.4] * 5),
    ({"time": "early"}, [0.4, 0.4, 0.0, 0.0, 0.0]),
    ({"time": "early", "cutoff": 0.25}, [0.4, 0.0, 0.0, 0.0, 0.0]),
    ({"time": "late"}, [0.0, 0.0, 0.4, 0.4, 0.4]),
    ({"time": "late", "cutoff": 1}, [0.0, 0.0, 0.0, 0.0, 0.4]),
    ({"time": "linear"}, [0.4, 0.3, 0.2, 0.1, 0.0]),
    ({"time": "linear", "cutoff": 0.5}, [0.4, 0.2, 0.0, 0.0, 0.0]),
    ({"time": "linear-late"}, [0.0, 0.1, 0.2, 0.3, 0.4]),
    ({"time": lambda progress: progress**2}, [0.0, 0.025, 0.1, 0.225, 0.4]),
    ({"time": "linear", "levels": 2}, [0.4, 0.4, 0.0, 0.0, 0.0]),
    ({"time": "early", "keep_mean": True}, [0.8, 0.8, 0.0, 0.0, 0.0]),
]


@pytest.mark.parametrize(("options", "wanted"), COURSES)
def test_profiles(options: dict[str, Any], wanted: list[float]) -> None:
    model = found()
    before = draws(model, vectors()).rates
    assert course(model, 4, **options) == pytest.approx(wanted)
    assert draws(model, vectors()).rates == before


@pytest.mark.parametrize("time", ["early", "late", "linear", "linear-late"])
@pytest.mark.parametrize("levels", [None, 2, 5])
def test_the_mean_over_time_is_kept(time: str, levels: int | None) -> None:
    with warnings.catch_warnings():
        seen = course(found(), 101, time, keep_mean=True, levels=levels)
    assert sum(seen[:-1]) / 101 == pytest.approx(0.4, rel=1e-12)
    if levels is not None:
        assert len(set(seen)) <= levels


@pytest.mark.parametrize("build", [nested, Functional])
def test_what_is_drawn_follows_the_steps(build: Any) -> None:
    model = found(build())
    rates = [0.1, 0.2, 0.3, 0.4, 0.5][: len(ds.dropout_sites(model, *vectors()))]
    with ds.DropoutScheduler(model, rates, 4, "linear-late") as scheduler:
        for step in range(6):
            factor = min(1.0, step / 4)
            expected = [rate * factor for rate in rates if factor]
            assert draws(model, vectors()).rates == pytest.approx(expected)
            scheduler.step()
        assert scheduler.progress == 1.0


@pytest.mark.parametrize("at", [0, 3, 7, 10])
def test_resumed_as_if_never_stopped(at: int) -> None:
    whole = course(found(), 10, "linear")
    model = found()
    with ds.DropoutScheduler(model, RATES, 10, "linear") as scheduler:
        for _ in range(at):
            scheduler.step()
        saved = io.BytesIO()
        torch.save(scheduler.state_dict(), saved)
    state = torch.load(io.BytesIO(saved.getvalue()))  # plain values: weights_only
    assert json.loads(json.dumps(state)) == state
    with ds.DropoutScheduler(found(), [0.0] * 3, 10, "linear") as scheduler:
        scheduler.load_state_dict(state)
        rest = [max(scheduler.rates)]
        for _ in range(10 - at):
            scheduler.step()
            rest.append(max(scheduler.rates))
    assert rest == whole[at:]


def test_states_that_do_not_fit() -> None:
    scheduler = ds.DropoutScheduler(found(), RATES, 10, "linear")
    scheduler.step()
    state = scheduler.state_dict()
    longer = ds.DropoutScheduler(found(), RATES, 20, "early")
    with pytest.raises(InputError, match="total_steps 10, now 20, time 'linear', now 'early'"):
        longer.load_state_dict(state)
    assert longer.step_count == 0
    longer.load_state_dict(state, strict=False)
    assert longer.step_count == 1
    other = ds.DropoutScheduler(found(Functional()), [0.1] * 5, 10, "linear")
    with pytest.raises(InputError, match=r"sites '0.0.1.1', '0.1.1.1', '1', this scheduler has"):
        other.load_state_dict(state)
    with pytest.raises(InputError, match="it has no 'step'"):
        scheduler.load_state_dict({})
    for wrong in ({"step": -1}, {"step": 1.5}, {"rates": [0.1]}, {"rates": [0.1, 0.2, 2.0]}):
        with pytest.raises(InputError):
            scheduler.load_state_dict(state | wrong)
        assert scheduler.state_dict() == state


@pytest.mark.parametrize("state", [None, 3, "state", ["step", "rates", "sites"]])
def test_what_is_no_state(state: Any) -> None:
    scheduler = ds.DropoutScheduler(found(), RATES, 10)
    with pytest.raises(InputError, match=r"no state of a DropoutScheduler: .* expected the dict"):
        scheduler.load_state_dict(state)
    with pytest.raises(InputError, match="no state of a DropoutScheduler"):
        ds.lightning_callback(RATES).load_state_dict(state)
    for key in ("rates", "sites"):
        with pytest.raises(InputError, match=f"{key} of the state is 3; expected a list"):
            scheduler.load_state_dict(scheduler.state_dict() | {key: 3})


ERRORS = [
    ({"total_steps": 0}, "total_steps is 0; expected a whole number from 1"),
    ({"total_steps": 2.5}, "total_steps is 2.5"),
    ({"time": "sometimes"}, "time is 'sometimes'; expected constant, early"),
    ({"cutoff": 0.5}, "cutoff is for the profiles"),
    ({"time": "early", "cutoff": 0}, r"cutoff is 0; expected a share of the training in \(0, 1\]"),
    ({"time": "early", "cutoff": "half"}, "cutoff is 'half'; expected a number"),
    ({"levels": 1}, "levels is 1; expected a whole number from 2"),
    ({"time": lambda progress: 2 * progress}, "is 1.2 at progress 0.6"),
    ({"time": lambda progress: None}, "the factor of the profile is None"),
    ({"time": "late", "cutoff": 0.8, "keep_mean": True}, r"0.4 would become 2.* less than 0.2"),
    ({"time": "late", "cutoff": 1, "keep_mean": True}, "0 at every step"),
    ({"schedule": [0.1]}, "1 rates for 3 sites"),
]


@pytest.mark.parametrize(("options", "message"), ERRORS)
def test_errors_leave_the_model_free(options: dict[str, Any], message: str) -> None:
    model = found()
    given: dict[str, Any] = {"schedule": RATES, "total_steps": 5, **options}
    with pytest.raises(InputError, match=message):
        ds.DropoutScheduler(model, **given)
    assert draws(model, vectors()).rates == [0.1, 0.2]
    ds.apply_schedule(model, RATES).remove()


def test_on_rates_that_are_applied_already() -> None:
    model = found()
    with ds.apply_schedule(model, RATES) as applied:
        with ds.DropoutScheduler(applied, None, 2, "linear") as scheduler:
            scheduler.step()
            assert applied.rates == (0.05, 0.1, 0.2)
        assert applied.rates == RATES
        scheduler.remove()
        with pytest.raises(InputError, match="were removed; make a new scheduler"):
            scheduler.step()
        ds.DropoutScheduler(applied, [0.3, 0.3, 0.3], 2)
        assert applied.rates == (0.3, 0.3, 0.3)
        with pytest.raises(InputError, match="leave them out"):
            ds.DropoutScheduler(applied, None, 2, sites=["1"])
        with pytest.raises(InputError, match="already scheduled"):
            ds.DropoutScheduler(model, RATES, 2)


def test_sites_that_cannot_be_set_over_time() -> None:
    model = nn.Sequential(*(PathBlock(rate) for rate in (0.0, 0.1, 0.2)))
    ds.dropout_sites(model, *vectors())
    ds.DropoutScheduler(model, [0.0, 0.1, 0.2], 4, "early").remove()  # 0 stays 0
    with pytest.raises(InputError, match=r"an nn.Identity"):
        ds.DropoutScheduler(model, [0.1, 0.1, 0.2], 4, "early")


def test_a_model_in_eval_mode_is_warned_of_at_the_call() -> None:
    with pytest.warns(UserWarning, match="eval mode") as warned:
        ds.DropoutScheduler(found(nested().eval()), RATES, 2)
    assert warned[0].filename == __file__


def test_levels_bound_what_is_compiled() -> None:
    torch._dynamo.reset()
    graphs = []

    def backend(graph: Any, example: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(found(nested().train()), backend=backend, fullgraph=True)
    with ds.DropoutScheduler(compiled, RATES, 40, "linear", levels=4) as scheduler:
        for _ in range(40):
            compiled(*vectors())
            scheduler.step()
    assert len(graphs) == 4


SCHEDULE = ds.Schedule([0.2, 0.4], ["0.1", "1.1"])


class Net(nn.Sequential):
    """Two sites; what drops at each step is written down."""

    def __init__(self) -> None:
        parts = (nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)) for _ in range(2))
        super().__init__(*parts)
        self.seen: list[tuple[float, float]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append((self[0][1].p, self[1][1].p))
        return super().forward(x)


def falling(steps: int, total: int = 12) -> list[Any]:
    return [pytest.approx((0.2 * (1 - k / total), 0.4 * (1 - k / total))) for k in range(steps)]


class TestLightning:
    def module(self) -> Any:
        from lightning.pytorch import LightningModule

        class Module(LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = Net()

            def training_step(self, batch: Any, index: int) -> torch.Tensor:
                return self.net(batch).square().mean()

            def validation_step(self, batch: Any, index: int) -> None:
                self.net(batch)

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), 0.01)

        return Module()

    def fit(self, module: Any, callback: Any, path: Path, **options: Any) -> Any:
        from lightning.pytorch import Trainer

        resumed = options.pop("ckpt_path", None)
        trainer = Trainer(
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=path,
            callbacks=[callback],
            **{"max_epochs": 2, **options},
        )
        data = torch.utils.data.DataLoader(torch.randn(24, WIDTH), batch_size=4)
        trainer.fit(module, data, data, ckpt_path=resumed)
        return trainer

    def test_steps_resumes_and_removes(self, tmp_path: Path) -> None:
        module = self.module()
        self.fit(module, ds.lightning_callback(SCHEDULE, "linear", part="net"), tmp_path)
        assert module.net.seen == falling(12)
        assert (module.net[0][1].p, module.net[1][1].p) == (0.1, 0.1)

        half, callback = self.module(), ds.lightning_callback(
            SCHEDULE, "linear", part="net", total_steps=12
        )  # fmt: skip
        self.fit(half, callback, tmp_path, max_epochs=1).save_checkpoint(tmp_path / "half.ckpt")
        assert half.net.seen == falling(6)
        saved = torch.load(tmp_path / "half.ckpt")["callbacks"]
        assert [state["step"] for state in saved.values()] == [6]

        rest, callback = self.module(), ds.lightning_callback(SCHEDULE, "linear", part="net")
        self.fit(rest, callback, tmp_path, ckpt_path=tmp_path / "half.ckpt")
        assert rest.net.seen == falling(12)[6:]
        assert rest.net[0][1].p == 0.1
        assert callback.scheduler is None

        longer = ds.lightning_callback(SCHEDULE, "linear", part="net")
        options = {"ckpt_path": tmp_path / "half.ckpt", "max_epochs": 3}
        with pytest.raises(InputError, match="total_steps 12, now 18"):
            self.fit(self.module(), longer, tmp_path, **options)
        longer = ds.lightning_callback(SCHEDULE, "linear", part="net", strict=False)
        other = self.module()
        self.fit(other, longer, tmp_path, **options)
        assert other.net.seen == falling(18, 18)[6:]

    def test_accumulated_gradients_and_a_second_fit(self, tmp_path: Path) -> None:
        module = self.module()
        callback = ds.lightning_callback(SCHEDULE, "linear", part="net")
        self.fit(module, callback, tmp_path, accumulate_grad_batches=3)
        assert module.net.seen == [rates for rates in falling(4, 4) for _ in range(3)]
        module.net.seen.clear()
        self.fit(module, callback, tmp_path)
        assert module.net.seen == falling(12)

    def test_removed_after_an_exception(self, tmp_path: Path) -> None:
        module = self.module()
        callback = ds.lightning_callback(SCHEDULE, part="net")

        def fails(*batch: Any) -> None:
            assert (module.net[0][1].p, module.net[1][1].p) == SCHEDULE.rates
            raise ZeroDivisionError

        module.validation_step = fails
        with pytest.raises(ZeroDivisionError):
            self.fit(module, callback, tmp_path, num_sanity_val_steps=0)
        assert (module.net[0][1].p, module.net[1][1].p) == (0.1, 0.1)
        ds.apply_schedule(module.net.train(), SCHEDULE).remove()

    def test_bad_parts_steps_and_profiles(self, tmp_path: Path) -> None:
        callback = ds.lightning_callback(SCHEDULE, part="nett")
        with pytest.raises(InputError, match="part is 'nett'"):
            self.fit(self.module(), callback, tmp_path)
        endless = ds.lightning_callback(SCHEDULE, part="net")
        with pytest.raises(InputError, match="give total_steps="):
            self.fit(self.module(), endless, tmp_path, max_epochs=-1)
        with pytest.raises(InputError, match="time is 'sometimes'"):
            ds.lightning_callback(SCHEDULE, "sometimes")

    def test_pickled(self) -> None:
        callback = ds.lightning_callback(SCHEDULE, "early", part="net")
        copied = pickle.loads(pickle.dumps(callback))
        assert type(copied) is type(callback)
        assert (copied.schedule, copied.time) == (SCHEDULE, "early")


class TestHuggingFace:
    def train(self, path: Path, callback: Any, resume: Any = None, **options: Any) -> Any:
        from transformers import Trainer, TrainingArguments

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = Net()

            def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
                return {"loss": self.net(x).square().mean()}

        arguments: dict[str, Any] = {
            "output_dir": str(path),
            "per_device_train_batch_size": 4,
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "steps",
            "save_steps": 5,
            "disable_tqdm": True,
            "num_train_epochs": 2,
        }
        trainer = Trainer(
            Model(),
            TrainingArguments(**(arguments | options)),
            train_dataset=[{"x": torch.randn(WIDTH)} for _ in range(24)],
            callbacks=[callback],
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer.model.net

    @pytest.mark.parametrize("restore", [False, True])
    def test_steps_resumes_and_removes(self, tmp_path: Path, restore: bool) -> None:
        net = self.train(tmp_path, ds.trainer_callback(SCHEDULE, "linear", part="net"))
        assert net.seen == falling(12)
        assert (net[0][1].p, net[1][1].p) == (0.1, 0.1)
        state = json.loads((tmp_path / "checkpoint-5" / "trainer_state.json").read_text())
        saved = state["stateful_callbacks"]["TrainerDropout"]["attributes"]["saved"]
        assert (saved["step"], saved["rates"]) == (5, [0.2, 0.4])

        given = ds.Schedule([0.0, 0.0], SCHEDULE.sites)  # what the checkpoint says counts
        callback = ds.trainer_callback(given, "linear", part="net")
        net = self.train(
            tmp_path,
            callback,
            str(tmp_path / "checkpoint-5"),
            restore_callback_states_from_checkpoint=restore,
        )
        assert net.seen == falling(12)[5:]
        assert net[0][1].p == 0.1

    def test_accumulated_gradients_and_a_function(self, tmp_path: Path) -> None:
        callback = ds.trainer_callback(SCHEDULE, lambda progress: 1 - progress, part="net")
        net = self.train(tmp_path, callback, gradient_accumulation_steps=3)
        assert net.seen == [rates for rates in falling(4, 4) for _ in range(3)]
        resume = str(tmp_path / "checkpoint-4")
        with pytest.raises(InputError, match="cannot be restored from a checkpoint"):
            self.train(tmp_path, callback, resume, restore_callback_states_from_checkpoint=True)

    def test_other_settings_on_resuming(self, tmp_path: Path) -> None:
        self.train(tmp_path, ds.trainer_callback(SCHEDULE, "linear", part="net"))
        resume = str(tmp_path / "checkpoint-5")
        with pytest.raises(InputError, match="time 'linear', now 'early'"):
            self.train(tmp_path, ds.trainer_callback(SCHEDULE, "early", part="net"), resume)


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        ("lightning_callback", ["lightning", "pytorch_lightning"]),
        ("trainer_callback", ["transformers"]),
    ],
)
def test_libraries_are_asked_for_only_when_a_callback_is_made(
    call: str, missing: list[str]
) -> None:
    code = (
        "import sys, depthscale as ds\n"
        f"ds.{call}, ds.DropoutScheduler\n"
        "trainers = {'lightning', 'pytorch_lightning', 'transformers', 'accelerate'}\n"
        "assert not trainers & set(sys.modules)\n"
        f"sys.modules.update(dict.fromkeys({missing}))\n"
        f"try: ds.{call}([0.1])\n"
        "except ds.InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"needs {missing[0]}, which is not installed" in done.stdout
    assert f"pip install 'depthscale[{missing[0]}]'" in done.stdout
