"""The README says what is true now: its Python runs, its numbers hold, its map names every file."""

import re
from pathlib import Path

import pytest
import torch

import depthscale as ds
from depthscale.cli import main

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def test_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "report.html").exists()


def test_numbers_of_the_mean_field():
    field = ds.MeanField("tanh", sigma_w=1.7, sigma_b=0.3, drop=0.1)
    comment = re.search(r"correlation  # ([\d., ]+) layers", TEXT).group(1)
    values = (field.q, field.eps, field.chi, field.depth_scale.correlation)
    assert comment == ", ".join(f"{value:.2f}" for value in values)


@pytest.mark.parametrize(
    "command", re.findall(r"\| `depthscale ((?:theory|critical|phase) [^`]*)` \|", TEXT)
)
def test_commands_of_the_table_run(command, capsys):
    assert main([*command.split(), "--json"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_map_names_every_file():
    map_ = TEXT.split("## Map of the house")[1].split("## Limits")[0]
    for path in (ROOT / "src" / "depthscale").rglob("*.py"):
        room = path.relative_to(ROOT / "src" / "depthscale").parts
        named = path.name if len(room) < 3 and room[0] != "report" else f"{room[-2]}/"
        if path.name not in ("__init__.py", "__main__.py"):
            assert named in map_, path
