"""Data sets: what is read is what was written, and what is not data is refused with a reason."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthscale.answers import InputError
from depthscale.practice.data import DataSet, digits, from_file, load, normal


class TestDigits:
    def test_is_real_standardised_and_typed(self):
        data = digits()
        assert data.inputs.shape == (1797, 64)
        assert data.inputs.dtype == torch.float32
        assert data.targets is not None
        assert data.targets.dtype == torch.int64
        assert sorted(set(data.targets.tolist())) == list(range(10))
        # One mean and one deviation over all pixels; float32 sums of 1e5 numbers keep 1e-5.
        assert abs(float(data.inputs.mean())) < 1e-5
        assert float(data.inputs.square().mean()) == pytest.approx(1.0, abs=1e-5)

    def test_random_pairs_are_similar(self):
        # The reason for one mean over all pixels: there is a similarity for a network to lose.
        data = digits()
        half = len(data) // 2
        first, second = data.inputs[:half], data.inputs[half : 2 * half]
        cosine = torch.nn.functional.cosine_similarity(first, second).mean()
        assert 0.4 < float(cosine) < 0.6


class TestDataSet:
    @given(size=st.integers(1, 60), seed=st.integers(0, 2**31))
    def test_a_draw_has_no_example_twice_and_keeps_labels(self, size, seed):
        data = DataSet(torch.arange(40.0).reshape(40, 1), torch.arange(40), "numbered")
        drawn = data.draw(size, seed)
        assert len(drawn) == min(size, 40)
        assert len(set(drawn.targets.tolist())) == len(drawn)
        assert torch.equal(drawn.inputs[:, 0].long(), drawn.targets)

    @given(share=st.floats(0.05, 0.95), seed=st.integers(0, 2**31))
    def test_a_split_is_a_partition(self, share, seed):
        data = DataSet(torch.arange(40.0).reshape(40, 1), torch.arange(40), "numbered")
        train, test = data.split(share, seed)
        assert len(test) == round(share * 40)
        assert sorted([*train.targets.tolist(), *test.targets.tolist()]) == list(range(40))

    def test_draws_depend_on_the_seed_alone(self):
        torch.manual_seed(0)
        first = digits().draw(20, seed=3)
        torch.rand(5)
        assert torch.equal(first.inputs, digits().draw(20, seed=3).inputs)
        assert not torch.equal(first.inputs, digits().draw(20, seed=4).inputs)

    def test_refuses_impossible_sizes(self):
        with pytest.raises(InputError, match="at least 1"):
            digits().draw(0)
        with pytest.raises(InputError, match="test share"):
            digits().split(0.0)

    def test_reshape_keeps_the_numbers(self):
        data = digits()
        image = data.reshape((1, 8, 8))
        assert image.inputs.shape == (1797, 1, 8, 8)
        assert torch.equal(image.inputs.flatten(1), data.inputs)
        with pytest.raises(InputError, match=r"64 numbers.*shape \(3, 8, 8\) of 192"):
            data.reshape((3, 8, 8))


class TestNormal:
    def test_law_and_seed(self):
        data = normal((3, 8, 8), size=400, seed=1)
        assert data.inputs.shape == (400, 3, 8, 8)
        assert data.targets is None
        # 76,800 numbers: the standard errors of mean and mean square are .0036 and .0051; five of
        # them leave a chance of 1e-6 to fail, and the seed is fixed.
        assert abs(float(data.inputs.mean())) < 0.018
        assert abs(float(data.inputs.square().mean()) - 1) < 0.026
        assert torch.equal(data.inputs, normal((3, 8, 8), size=400, seed=1).inputs)

    @pytest.mark.parametrize(("shape", "size"), [((), 4), ((0,), 4), ((3,), 0)])
    def test_refuses_nothing(self, shape, size):
        with pytest.raises(InputError, match="positive batch and shape"):
            normal(shape, size)

    def test_needs_a_shape(self):
        with pytest.raises(InputError, match="shape of one example"):
            load("normal")


INPUTS = np.arange(24, dtype=np.float64).reshape(6, 4) / 7
TARGETS = np.array([0, 1, 2, 0, 1, 2])


def write(path: Path, content: object) -> Path:
    """Write arrays in the format that the file's ending names."""
    if path.suffix == ".npy":
        np.save(path, content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        torch.save(content, path)
    return path


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "content", "labelled"),
        [
            ("a.npy", INPUTS, False),
            ("a.npz", {"inputs": INPUTS, "targets": TARGETS}, True),
            ("b.npz", {"x": INPUTS, "y": TARGETS.astype(np.uint8)}, True),
            ("c.npz", {"whatever": INPUTS}, False),
            ("d.npy", INPUTS.astype(">f8"), False),
            ("a.pt", torch.from_numpy(INPUTS), False),
            ("b.pt", (torch.from_numpy(INPUTS), torch.from_numpy(TARGETS)), True),
            ("c.pt", {"X": torch.from_numpy(INPUTS), "labels": torch.from_numpy(TARGETS)}, True),
        ],
    )
    def test_round_trip(self, tmp_path, name, content, labelled):
        data = from_file(write(tmp_path / name, content))
        assert data.inputs.dtype == torch.float32
        assert torch.equal(data.inputs, torch.from_numpy(INPUTS.astype(np.float32)))
        assert (data.targets is not None) == labelled
        if labelled:
            assert data.targets.tolist() == TARGETS.tolist()

    def test_integers_stay_integers(self, tmp_path):
        tokens = np.array([[1, 2], [3, 60000]], dtype=np.uint16)
        data = from_file(write(tmp_path / "tokens.npy", tokens))
        assert data.inputs.dtype == torch.int64
        assert data.inputs.tolist() == tokens.tolist()

    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt"])
    @pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.9])
    def test_half_a_file(self, tmp_path, name, kept):
        content = {"inputs": np.ones((50, 40))} if name == "a.npz" else np.ones((50, 40))
        path = write(tmp_path / name, torch.ones(50, 40) if name == "a.pt" else content)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(InputError, match=r"a\.(npy|npz|pt) (is empty|is damaged|cannot be)"):
            from_file(path)

    @pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.pt"])
    def test_a_file_of_another_kind(self, tmp_path, name):
        path = tmp_path / name
        path.write_text("epoch,loss\n1,2.3\n")
        with pytest.raises(InputError, match=rf"{name} (is damaged|cannot be read)"):
            from_file(path)

    @pytest.mark.parametrize("name", ["evil.npy", "evil.npz", "evil.pt"])
    def test_pickles_are_not_run(self, tmp_path, name):
        path = tmp_path / name
        marker = tmp_path / "ran"

        class Evil:
            def __reduce__(self):
                return (marker.write_text, ("code from the file was run",))

        if name == "evil.npz":
            np.savez(path, inputs=np.array([Evil()], dtype=object))
        elif name == "evil.npy":
            path.write_bytes(pickle.dumps(Evil()))
        else:
            torch.save({"inputs": Evil()}, path)
        with pytest.raises(InputError, match="evil"):
            from_file(path)
        assert not marker.exists()

    def test_object_arrays(self, tmp_path):
        ragged = np.empty(2, dtype=object)
        ragged[:] = [[1, 2], [3]]
        np.save(tmp_path / "ragged.npy", ragged, allow_pickle=True)
        with pytest.raises(InputError, match=r"Python objects.*all examples of one shape"):
            from_file(tmp_path / "ragged.npy")

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("flat.npy", np.ones(5), r"shape \(5,\); expected \[example"),
            ("none.npy", np.ones((0, 4)), "at least one example"),
            ("text.npy", np.array([["a", "b"]]), "expected real numbers"),
            ("complex.npy", np.ones((2, 2), dtype=complex), "expected real numbers"),
            ("nan.npy", np.array([[1.0, 2.0], [np.nan, 1.0]]), "1 of 4 values.*in example 1"),
            ("huge.npy", np.full((2, 2), 1e300), "NaN or infinite as float32"),
            ("names.npz", {"p": INPUTS, "q": INPUTS}, "no array called 'inputs'.*p, q"),
            ("short.npz", {"x": INPUTS, "y": TARGETS[:4]}, "one integer for each of the 6"),
            ("real.npz", {"x": INPUTS, "y": TARGETS / 2}, "one integer for each"),
            ("weights.pt", torch.nn.Linear(2, 2).state_dict(), "weights of a model"),
            ("three.pt", [torch.ones(2, 2)] * 3, "holds a list; expected a tensor"),
            ("words.pt", {"inputs": "no"}, "are a str; expected an array"),
            ("sparse.pt", torch.eye(2).to_sparse(), "expected a dense one"),
        ],
    )
    def test_wrong_content(self, tmp_path, name, content, said):
        with pytest.raises(InputError, match=said):
            from_file(write(tmp_path / name, content))

    def test_wrong_paths(self, tmp_path):
        with pytest.raises(InputError, match="does not exist"):
            from_file(tmp_path / "missing.npy")
        with pytest.raises(InputError, match="is a folder"):
            from_file(tmp_path)
        (tmp_path / "a.csv").write_text("1,2")
        with pytest.raises(InputError, match=r"expected \.npy, \.npz or \.pt"):
            from_file(tmp_path / "a.csv")

    def test_load_dispatches_and_reshapes(self, tmp_path):
        path = write(tmp_path / "a.npy", INPUTS)
        assert load(str(path), shape=(2, 2)).inputs.shape == (6, 2, 2)
        assert load("digits", shape=(1, 8, 8)).inputs.shape == (1797, 1, 8, 8)
        assert load("normal", shape=(5,), size=7).inputs.shape == (7, 5)
