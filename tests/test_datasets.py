"""Data sets of images: what is published is what is read, and nothing else passes for it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import sys
import tarfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from depthscale import cli
from depthscale.answers import InputError
from depthscale.practice import data as sources_of_data
from depthscale.practice.datasets import NAMES, digits, load, mnist1d
from depthscale.practice.images.formats import (
    read_cifar,
    read_idx,
    read_idx_pair,
    read_json_digits,
)
from depthscale.practice.images.sources import FASHION_MNIST, SOURCES, Content, Download, Source
from depthscale.practice.loading import LoadedModel, choose_data
from depthscale.practice.training import train

GENERATOR = np.random.default_rng(5)
DEBIAN = FASHION_MNIST.system[0]


def idx(values: np.ndarray) -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes([0, 0, 8, values.ndim]) + lengths + values.astype(np.uint8).tobytes()


def described(name: str, content: bytes) -> Content:
    return Content(name, len(content), hashlib.sha256(content).hexdigest())


IMAGES = {"train": GENERATOR.integers(0, 256, (40, 28, 28))}
IMAGES["t10k"] = GENERATOR.integers(0, 256, (12, 28, 28))
LABELS = {part: np.arange(len(images)) % 10 for part, images in IMAGES.items()}
IDX = {f"{part}-images-idx3-ubyte": idx(images) for part, images in IMAGES.items()}
IDX |= {f"{part}-labels-idx1-ubyte": idx(labels) for part, labels in LABELS.items()}
PACKED = {f"{name}.gz": gzip.compress(content) for name, content in IDX.items()}


def records(size: int, classes: int) -> bytes:
    tags = 2 if classes == 100 else 1
    values = GENERATOR.integers(0, 256, (size, tags + 3072), dtype=np.uint8)
    values[:, :tags] = 0
    values[:, tags - 1] = np.arange(size) * (7 if classes == 100 else 1) % classes
    return values.tobytes()


CIFAR = {
    "cifar-10": {
        **{f"data_batch_{part}.bin": records(4, 10) for part in range(1, 6)},
        "test_batch.bin": records(6, 10),
    },
    "cifar-100": {"train.bin": records(20, 100), "test.bin": records(6, 100)},
}
BELOW = {"cifar-10": "cifar-10-batches-bin", "cifar-100": "cifar-100-binary"}


def tarred(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info in extra:
            archive.addfile(info, io.BytesIO(b"x" * info.size))
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def cifar_tar(name: str) -> bytes:
    """As published, with a text file and a foreign path among the members."""
    members = {f"{BELOW[name]}/{file}": content for file, content in CIFAR[name].items()}
    return tarred({f"{BELOW[name]}/readme.html": b"text", "../../escaped": b"x", **members})


TARS = {name: cifar_tar(name) for name in CIFAR}


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published sets of a few examples, in the real formats; nothing is found on this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("DEPTHSCALE_DATA", raising=False)
    downloads = tuple(
        Download(described(f"{name}.gz", PACKED[f"{name}.gz"]), (described(name, content),))
        for name, content in IDX.items()
    )
    nowhere = "http://127.0.0.1:9/"  # the port that discards; nothing listens
    for name in ("fashion-mnist", "mnist"):
        inside = ("", "raw")
        monkeypatch.setitem(SOURCES, name, Source(name, nowhere, downloads, inside, hint="ask"))
    for name, contents in CIFAR.items():
        download = Download(
            described(f"{name}-binary.tar.gz", TARS[name]),
            tuple(described(file, content) for file, content in contents.items()),
        )
        source = Source(name, nowhere, (download,), ("", BELOW[name]), hint="ask")
        monkeypatch.setitem(SOURCES, name, source)


def put(folder: Path, contents: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


class TestIdx:
    @given(
        st.lists(st.integers(1, 5), min_size=1, max_size=3),
        st.integers(0, 2**32 - 1),
    )
    def test_reads_what_was_written(self, shape, seed):
        values = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        assert np.array_equal(read_idx(idx(values), len(shape)), values)

    @given(st.binary(max_size=40))
    def test_anything_else_is_an_input_error(self, content):
        try:
            values = read_idx(content, 1)
        except InputError:
            return
        assert idx(values) == content

    @pytest.mark.parametrize("cut", [0, 3, 4, 11, 15, 16, 100, -1])
    def test_refuses_half_a_file(self, cut):
        with pytest.raises(InputError, match=r"get (the file|it) again"):
            read_idx(IDX["train-images-idx3-ubyte"][:cut], 3)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (IDX["train-labels-idx1-ubyte"], "starts with 00 00 08 01, expected 00 00 08 03"),
            (b"\0\0\x0d\3" + bytes(12), "00 00 0d 03"),
            (b"\x1f\x8b" + bytes(20), "1f 8b"),
            (idx(np.zeros((0, 28, 28))), "0 x 28 x 28"),
            (b"\0\0\x08\3" + b"\xff" * 12 + bytes(9), "4294967295"),
            (IDX["train-images-idx3-ubyte"] + b"\0", "40 x 28 x 28 values and holds 31361"),
        ],
    )
    def test_refuses_other_files(self, content, message):
        with pytest.raises(InputError, match=message):
            read_idx(content, 3)

    def test_pairs_belong_together(self):
        images, labels = read_idx_pair(idx(IMAGES["t10k"]), idx(LABELS["t10k"]), "here")
        assert images.shape == (12, 1, 28, 28)
        assert labels.dtype == np.int64
        with pytest.raises(InputError, match="12 images and 40 labels"):
            read_idx_pair(idx(IMAGES["t10k"]), idx(LABELS["train"]), "here")
        with pytest.raises(InputError, match="label of example 3 in here is 10; expected 0 to 9"):
            read_idx_pair(idx(IMAGES["t10k"]), idx(np.arange(12) + 7), "here")


class TestCifarRecords:
    def test_planes_follow_the_label(self):
        record = bytes([7]) + bytes(1024) + bytes([1] * 1024) + bytes(range(256)) * 4
        images, labels = read_cifar(record * 2, 10, "here")
        assert labels.tolist() == [7, 7]
        assert images.shape == (2, 3, 32, 32)
        assert images[1, 0].max() == 0
        assert set(images[1, 1].flatten()) == {1}
        assert images[1, 2, 1].tolist() == list(range(32, 64))  # the second row of blue

    def test_fine_labels_of_a_hundred(self):
        images, labels = read_cifar(bytes([19, 99]) + bytes(3072), 100, "here")
        assert labels.tolist() == [99]
        assert images.shape == (1, 3, 32, 32)

    @pytest.mark.parametrize("size", [0, 1, 3072, 3074, 3 * 3073 - 1])
    def test_refuses_parts_of_records(self, size):
        with pytest.raises(InputError, match="multiple of 3073"):
            read_cifar(bytes(size), 10, "here")

    def test_refuses_labels_out_of_range(self):
        with pytest.raises(InputError, match="is 10; expected 0 to 9"):
            read_cifar(bytes([10]) + bytes(3072), 10, "here")
        with pytest.raises(InputError, match="is 100; expected 0 to 99"):
            read_cifar(bytes([0, 100]) + bytes(3072), 100, "here")


class TestLoadIdx:
    @pytest.mark.parametrize("name", ["fashion-mnist", "mnist"])
    @pytest.mark.parametrize("contents", [IDX, PACKED])
    def test_is_standardised_by_its_training_part(self, tmp_path, name, contents):
        training, test = load(name, put(tmp_path / "here", contents))
        pixels = IMAGES["train"].astype(np.float64)
        for part, key in ((training, "train"), (test, "t10k")):
            expected = (IMAGES[key][:, None] - pixels.mean()) / pixels.std()
            assert part.inputs.dtype == torch.float32
            assert part.inputs.is_contiguous()
            # float32 holds numbers up to 2 to within 1.2e-7.
            assert np.abs(part.inputs.double().numpy() - expected).max() < 2e-7
            assert part.targets is not None
            assert part.targets.dtype == torch.int64
            assert part.targets.tolist() == LABELS[key].tolist()
        assert training.name == f"{name}, {tmp_path / 'here'}, training part"
        assert test.name.endswith("test part")

    def test_more_examples_than_a_block(self, tmp_path, monkeypatch):
        many = {"train": GENERATOR.integers(0, 256, (2100, 28, 28)), "t10k": IMAGES["t10k"]}
        contents = dict(IDX)
        contents["train-images-idx3-ubyte"] = idx(many["train"])
        contents["train-labels-idx1-ubyte"] = idx(np.arange(2100) % 10)
        downloads = tuple(
            Download(Content(f"{name}.gz", 1, ""), (described(name, content),))
            for name, content in contents.items()
        )
        monkeypatch.setitem(SOURCES, "mnist", Source("mnist", "", downloads))
        training, _ = load("mnist", put(tmp_path / "here", contents))
        pixels = many["train"]
        expected = (pixels[:, None] - pixels.mean()) / pixels.std()
        assert np.abs(training.inputs.double().numpy() - expected).max() < 2e-7

    def test_trains(self, tmp_path):
        training, test = load("fashion-mnist", put(tmp_path, PACKED))
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        run = train(model, training, test, steps=30, learning_rate=1e-2)
        assert run.losses[-1] < run.losses[0] / 2
        assert run.test is not None

    def test_places_in_their_order(self, tmp_path, monkeypatch):
        system = put(tmp_path / "system", PACKED)
        cache = tmp_path / "cache/depthscale/mnist"
        shared = tmp_path / "shared"
        monkeypatch.setenv("DEPTHSCALE_DATA", str(shared))
        old = SOURCES["mnist"]
        found = Source("mnist", "", old.downloads, old.inside, (system,))
        monkeypatch.setitem(SOURCES, "mnist", found)
        assert str(system) in load("mnist")[0].name
        for place in (cache, shared / "mnist"):
            put(place, IDX)
            assert str(place) in load("mnist")[0].name
        mine = put(tmp_path / "mine", {})
        assert str(shared) in load("mnist", mine)[0].name  # where it holds nothing
        put(mine / "raw", IDX)
        assert str(mine) in load("mnist", str(mine))[0].name

    def test_without_a_cache_folder_of_ones_own(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        for value in ("", "relative/path"):
            monkeypatch.setenv("XDG_CACHE_HOME", value)
            with pytest.raises(InputError, match=str(tmp_path / ".cache/depthscale/mnist")):
                load("mnist")

    @pytest.mark.parametrize("contents", [IDX, PACKED])
    def test_half_a_file(self, tmp_path, contents):
        name = next(iter(contents))
        put(tmp_path, contents | {name: contents[name][: len(contents[name]) // 2]})
        with pytest.raises(InputError, match=rf"{name} (holds|cannot be read).*delete it and get"):
            load("mnist", tmp_path)

    def test_half_a_packed_file_of_labels(self, tmp_path):
        # Small enough for gzip's end to be missing only after all bytes are there.
        name = "t10k-labels-idx1-ubyte.gz"
        put(tmp_path, PACKED | {name: PACKED[name][:-4]})
        with pytest.raises(InputError, match=f"{name} cannot be read, it is damaged"):
            load("mnist", tmp_path)

    @pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x1f\x8b\x08\0" * 9])
    def test_a_page_in_place_of_a_packed_file(self, tmp_path, content):
        put(tmp_path, PACKED | {"train-images-idx3-ubyte.gz": content})
        with pytest.raises(InputError, match=r"train-images-idx3-ubyte\.gz"):
            load("mnist", tmp_path)

    def test_a_bomb_is_not_unpacked(self, tmp_path):
        put(tmp_path, PACKED | {"t10k-labels-idx1-ubyte.gz": gzip.compress(bytes(10**7))})
        with pytest.raises(InputError, match="holds more than 20 bytes, the published file 20"):
            load("mnist", tmp_path)

    def test_other_content_of_the_same_length(self, tmp_path):
        other = IDX["train-labels-idx1-ubyte"][:-1] + b"\5"
        put(tmp_path, IDX | {"train-labels-idx1-ubyte": other})
        with pytest.raises(InputError, match=r"has the sha256 \w+, expected \w+: it differs from"):
            load("mnist", tmp_path)

    def test_tells_mnist_from_fashion(self, tmp_path, monkeypatch):
        changed = IDX["train-labels-idx1-ubyte"][:-1] + b"\5"
        old = SOURCES["fashion-mnist"].downloads
        downloads = tuple(
            Download(download.packed, (described(download.contents[0].name, changed),))
            if download.contents[0].name == "train-labels-idx1-ubyte"
            else download
            for download in old
        )
        monkeypatch.setitem(SOURCES, "fashion-mnist", Source("Fashion", "", downloads))
        put(tmp_path, IDX | {"train-labels-idx1-ubyte": changed})
        with pytest.raises(InputError, match="it is that of Fashion; load 'fashion-mnist' from"):
            load("mnist", tmp_path)

    def test_says_what_is_missing_and_how_to_get_it(self, tmp_path):
        put(tmp_path / "a", {name: PACKED[name] for name in list(PACKED)[:3]})
        with pytest.raises(InputError, match="not found") as caught:
            load("fashion-mnist", tmp_path / "a")
        text = str(caught.value)
        lacking = list(PACKED)[3]
        for part in (str(tmp_path / "a"), "cache/depthscale", f"lacks {lacking})", "ask"):
            assert part in text
        assert "load('fashion-mnist', download=True)" in text

    def test_folders_in_place_of_files_are_not_files(self, tmp_path):
        name = "t10k-labels-idx1-ubyte.gz"
        put(tmp_path, {other: PACKED[other] for other in PACKED if other != name})
        (tmp_path / name).mkdir()
        with pytest.raises(InputError, match=f"lacks {name}"):
            load("mnist", tmp_path)

    def test_a_file_in_place_of_the_folder(self, tmp_path):
        put(tmp_path, PACKED)
        for download in (False, True):
            with pytest.raises(InputError, match=r"gz is a file; expected the folder that holds"):
                load("mnist", tmp_path / next(iter(PACKED)), download=download)
        with pytest.raises(InputError, match="absent does not exist"):
            load("mnist", tmp_path / "absent")


class TestCifar:
    @pytest.mark.parametrize(("name", "classes"), [("cifar-10", 10), ("cifar-100", 100)])
    @pytest.mark.parametrize("kind", ["loose", "below", "tar"])
    def test_loads(self, tmp_path, name, classes, kind):
        if kind == "tar":
            put(tmp_path, {f"{name}-binary.tar.gz": TARS[name]})
        else:
            put(tmp_path / (BELOW[name] if kind == "below" else ""), CIFAR[name])
        training, test = load(name, tmp_path)
        parts = list(CIFAR[name].values())
        raw, labels = read_cifar(b"".join(parts[:-1]), classes, "")
        assert training.inputs.shape == (20, 3, 32, 32)
        assert test.inputs.shape == (6, 3, 32, 32)
        assert training.targets is not None
        assert training.targets.tolist() == labels.tolist()
        expected = (raw.astype(float) - raw.mean()) / raw.std()
        assert np.abs(training.inputs.double().numpy() - expected).max() < 2e-7
        held, _ = read_cifar(parts[-1], classes, "")
        expected = (held.astype(float) - raw.mean()) / raw.std()
        assert np.abs(test.inputs.double().numpy() - expected).max() < 2e-7
        assert not list(tmp_path.parent.rglob("escaped"))

    def test_links_in_an_archive_are_not_followed(self, tmp_path):
        secret = tmp_path / "secret"
        secret.write_bytes(CIFAR["cifar-100"]["train.bin"])
        link = tarfile.TarInfo("cifar-100-binary/train.bin")
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE):
            link.type, link.linkname = kind, str(secret)
            archive = tarred({"x/test.bin": CIFAR["cifar-100"]["test.bin"]}, link)
            put(tmp_path, {"cifar-100-binary.tar.gz": archive})
            with pytest.raises(InputError, match=r"lacks train\.bin"):
                load("cifar-100", tmp_path)

    @pytest.mark.parametrize("cut", [0, 20, 0.5, -8])
    def test_half_an_archive(self, tmp_path, cut):
        content = TARS["cifar-10"]
        cut = int(len(content) * cut) if isinstance(cut, float) else cut
        put(tmp_path, {"cifar-10-binary.tar.gz": content[:cut]})
        if cut == -8:  # the members are whole: only gzip's own sum is cut off
            assert len(load("cifar-10", tmp_path)[0]) == 20
            return
        with pytest.raises(InputError, match=r"tar\.gz"):
            load("cifar-10", tmp_path)

    @pytest.mark.parametrize("size", [0, 3072, 3073, 5 * 3073])
    def test_a_batch_of_another_length(self, tmp_path, size):
        put(tmp_path, CIFAR["cifar-10"] | {"data_batch_3.bin": bytes(size)})
        with pytest.raises(InputError, match=r"data_batch_3\.bin holds .* the published file 12,2"):
            load("cifar-10", tmp_path)

    @pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar-10-batches-py"])
    def test_the_pickled_version_is_not_read(self, tmp_path, name):
        put(tmp_path, {name: b"\x80\x04."})
        with pytest.raises(InputError, match="Python version, which is pickled"):
            load("cifar-10", tmp_path)


class TestJsonDigits:
    def write(self, folder: Path, each: int = 10) -> Path:
        pixels = GENERATOR.integers(0, 256, (10, each, 784))
        self.pixels = pixels
        lists = ((part / 255).round(3).ravel().tolist() for part in pixels)
        return put(
            folder,
            {
                f"{digit}.json": json.dumps({"data": numbers}).encode()
                for digit, numbers in enumerate(lists)
            },
        )

    @pytest.mark.parametrize("inside", ["", "src/digits", "package/src/digits"])
    def test_split_is_a_fixed_partition(self, tmp_path, inside):
        self.write(tmp_path / inside)
        training, test = load("mnist", tmp_path)
        assert len(training) == 85
        assert len(test) == 15
        assert training.targets is not None
        assert test.targets is not None
        counts = training.targets.bincount() + test.targets.bincount(minlength=10)
        assert counts.tolist() == [10] * 10
        assert training.targets[:6].tolist() == [3, 2, 2, 3, 0, 4]  # of seed 0, for good
        again, _ = load("mnist", tmp_path)
        assert torch.equal(again.inputs, training.inputs)
        # Rounding to three places and back gives the byte.
        levels = sorted(set(torch.cat([training.inputs, test.inputs]).flatten().tolist()))
        assert len(levels) == len(np.unique(self.pixels))

    def test_idx_files_come_first(self, tmp_path):
        self.write(put(tmp_path, PACKED))
        assert len(load("mnist", tmp_path)[0]) == 40

    def test_is_not_fashion(self, tmp_path):
        with pytest.raises(InputError, match="not found"):
            load("fashion-mnist", self.write(tmp_path))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not a file of digits"),
            (b'{"data": [0, 0.5', "not a file of digits"),
            (b"\xff\xfe\0", "not a file of digits"),
            (b"[1, 2]", "not a file of digits"),
            (b"[" * 100_000, "not a file of digits"),
            (b'{"images": []}', "not a file of digits"),
            (b'{"data": ["a"]}', "not a file of digits"),
            (b'{"data": [[1], [1, 2]]}', "not a file of digits"),
            (b'{"data": [1e400]}', "images of 784 pixels"),
            (b'{"data": []}', "images of 784 pixels"),
            (b'{"data": 3}', "images of 784 pixels"),
            (json.dumps({"data": [2.0] * 784}).encode(), r"outside of \[0, 1\]"),
            (json.dumps({"data": [float("nan")] * 784}).encode(), r"outside of \[0, 1\]"),
        ],
    )
    def test_refuses_other_files(self, content, message):
        with pytest.raises(InputError, match=message):
            read_json_digits(content, "0.json")


class Recorder(SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what it was asked for."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *message: object) -> None:
        self.asked.append(self.path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder served on this machine, as the place where the small data sets are published."""
    monkeypatch.setenv("no_proxy", "*")
    Recorder.asked.clear()
    published = put(tmp_path / "published", PACKED)
    put(published, {f"{name}-binary.tar.gz": content for name, content in TARS.items()})
    handler = partial(Recorder, directory=str(published))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        for name, source in list(SOURCES.items()):
            address = f"http://127.0.0.1:{http.server_address[1]}/"
            served = Source(name, address, source.downloads, source.inside, hint="ask")
            monkeypatch.setitem(SOURCES, name, served)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield published
        http.shutdown()
        thread.join()


class TestDownload:
    @pytest.mark.parametrize("name", sorted(SOURCES))
    def test_then_loads_without(self, server, tmp_path, name):
        fetched, _ = load(name, download=True)
        assert f"{tmp_path}/cache/depthscale/{name}" in fetched.name
        before = len(Recorder.asked)
        again, _ = load(name, download=True)
        assert torch.equal(load(name)[0].inputs, again.inputs)
        assert len(Recorder.asked) == before  # what is there is not fetched again

    def test_goes_into_the_first_place(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("DEPTHSCALE_DATA", str(tmp_path / "shared"))
        load("mnist", tmp_path / "new/folder", download=True)
        load("fashion-mnist", download=True)
        assert sorted(path.name for path in (tmp_path / "new/folder").iterdir()) == sorted(PACKED)
        assert (tmp_path / "shared/fashion-mnist").is_dir()
        assert not (tmp_path / "cache").exists()

    def test_fetches_only_what_is_missing(self, server, tmp_path):
        names = list(PACKED)
        put(tmp_path / "here", {name: PACKED[name] for name in names[:3]})
        load("mnist", tmp_path / "here", download=True)
        assert Recorder.asked == [f"/{names[3]}"]

    @pytest.mark.parametrize(
        "content",
        [b"", b"<html>", PACKED["train-images-idx3-ubyte.gz"][:-9], bytes(3_000_000)],
    )
    def test_a_foreign_file_is_not_kept(self, server, tmp_path, content):
        put(server, {"train-images-idx3-ubyte.gz": content})
        with pytest.raises(InputError, match=r"sent .*bytes with sha256.*Nothing was kept"):
            load("mnist", tmp_path / "here", download=True)
        assert list((tmp_path / "here").iterdir()) == []

    def test_same_length_other_bytes(self, server, tmp_path):
        name = "train-images-idx3-ubyte.gz"
        put(server, {name: PACKED[name][:-1] + bytes([PACKED[name][-1] ^ 1])})
        with pytest.raises(InputError, match="Nothing was kept"):
            load("mnist", tmp_path / "here", download=True)
        assert list((tmp_path / "here").iterdir()) == []

    def test_absent_on_the_server(self, server, tmp_path):
        (server / "train-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(InputError, match=r"could not be downloaded.*404"):
            load("mnist", tmp_path / "here", download=True)
        kept = [path.name for path in (tmp_path / "here").iterdir()]
        assert all(name in PACKED for name in kept)  # whole files, nothing half

    def test_no_server(self, tmp_path, monkeypatch):
        monkeypatch.setenv("no_proxy", "*")
        with pytest.raises(InputError, match=r"could not be downloaded.*put the file there"):
            load("mnist", tmp_path / "here", download=True)

    def test_a_place_that_cannot_be_written_to(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("DEPTHSCALE_DATA", str(tmp_path / "shared"))
        put(tmp_path / "shared", {"mnist": b"a file"})
        with pytest.raises(InputError, match="could not be downloaded"):
            load("mnist", download=True)

    def test_several_at_once(self, server, tmp_path):
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(load, "mnist", tmp_path / "here", True) for _ in range(8)]
            for job in jobs:
                assert len(job.result()[0]) == 40
        assert sorted(path.name for path in (tmp_path / "here").iterdir()) == sorted(PACKED)

    def test_addresses_are_https(self):
        import depthscale.practice.images.sources as published

        for source in (published.FASHION_MNIST, published.MNIST, published.CIFAR_10):
            assert source.address.startswith("https://")
            assert source.address.endswith("/")
            for content in (*source.contents, *(one.packed for one in source.downloads)):
                assert len(bytes.fromhex(content.sha256)) == 32


class TestDigits:
    def test_split(self):
        training, test = load("digits")
        assert training.inputs.shape == (1348, 1, 8, 8)
        assert test.inputs.shape == (449, 1, 8, 8)
        assert abs(float(training.inputs.double().mean())) < 1e-6
        assert float(training.inputs.double().square().mean()) == pytest.approx(1, abs=1e-6)
        everything = torch.cat([training.inputs, test.inputs]).flatten(1)
        whole = sources_of_data.digits().inputs
        assert len({tuple(row.tolist()) for row in everything}) == len(
            {tuple(row.tolist()) for row in whole}
        )
        assert torch.equal(digits()[1].inputs, test.inputs)


class TestMnist1d:
    def test_is_reproducible_and_leaves_global_generators_alone(self):
        pytest.importorskip("mnist1d", reason="the package mnist1d is not installed")
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        expected = random.random(), np.random.rand()  # noqa: NPY002
        random.seed(3)
        np.random.seed(3)  # noqa: NPY002
        training, test = load("mnist1d")
        assert (random.random(), np.random.rand()) == expected  # noqa: NPY002
        assert training.inputs.shape == (4000, 40)
        assert test.inputs.shape == (1000, 40)
        assert training.inputs.dtype == torch.float32
        assert training.targets is not None
        assert sorted(set(training.targets.tolist())) == list(range(10))
        assert float(training.inputs.double().square().mean()) == pytest.approx(1, abs=1e-6)
        assert torch.equal(mnist1d(42)[0].inputs, training.inputs)
        assert not torch.equal(mnist1d(1)[0].inputs, training.inputs)

    def test_says_how_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "mnist1d", None)
        monkeypatch.delitem(sys.modules, "mnist1d.data", raising=False)
        with pytest.raises(InputError, match=r"pip install 'depthscale\[mnist1d\]'"):
            load("mnist1d")

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.5, None, True])
    def test_refuses_other_seeds(self, seed):
        with pytest.raises(InputError, match="whole number from 0"):
            mnist1d(seed)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "hint"),
        [
            ("fashion_mnist", "did you mean fashion-mnist"),
            ("FashionMNIST", "did you mean fashion-mnist"),
            ("cifar10", "did you mean cifar-10"),
            ("imagenet", "expected fashion-mnist, mnist, digits"),
            ("", "expected"),
            (None, "no data set None"),
            (7, "no data set 7"),
            (["mnist"], "no data set"),
        ],
    )
    def test_refuses_others(self, name, hint):
        with pytest.raises(InputError, match=hint):
            load(name)

    def test_refuses_folders_that_are_no_paths(self):
        with pytest.raises(InputError, match="a folder is a path, got a int"):
            load("mnist", 3)

    def test_every_name_is_loaded_from_somewhere(self):
        assert set(SOURCES) | {"digits", "mnist1d"} == set(NAMES)


class TestAudit:
    def test_images_become_vectors_for_a_linear_layer(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DEPTHSCALE_DATA", str(tmp_path))
        put(tmp_path / "fashion-mnist", PACKED)
        dense = LoadedModel(torch.nn.Linear(784, 10), None, "dense")
        inputs, name = choose_data(dense, "fashion-mnist", None, 8, 0)
        assert inputs.shape == (8, 784)
        assert "training part" in name
        conv = LoadedModel(torch.nn.Conv2d(1, 4, 3), None, "conv")
        assert choose_data(conv, "fashion-mnist", None, 8, 0)[0].shape == (8, 1, 28, 28)
        shaped, _ = choose_data(dense, "fashion-mnist", (28, 28), 8, 0)
        assert shaped.shape == (8, 28, 28)

    def test_command(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        layers = "nn.Linear(784, 64), nn.Tanh(), nn.Linear(64, 10)"
        code = f"from torch import nn\n\ndef build():\n    return nn.Sequential({layers})\n"
        put(tmp_path, {"m.py": code.encode()})
        assert cli.main(["audit", "m.py", "--data", "mnist", "--json"]) == 2
        assert "looked in" in "".join(capsys.readouterr())
        monkeypatch.setenv("DEPTHSCALE_DATA", str(tmp_path))
        put(tmp_path / "mnist", PACKED)
        assert cli.main(["audit", "m.py", "--data", "mnist", "--json"]) in (0, 1)
        assert "training part" in capsys.readouterr().out

    def test_a_misspelt_name(self):
        with pytest.raises(InputError, match=r"does not exist; give .*fashion-mnist"):
            sources_of_data.load("fashion_mnist")


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
class TestRealFashion:
    def test_is_the_published_set(self, monkeypatch):
        monkeypatch.setitem(SOURCES, "fashion-mnist", FASHION_MNIST)
        training, test = load("fashion-mnist")
        assert training.inputs.shape == (60000, 1, 28, 28)
        assert test.inputs.shape == (10000, 1, 28, 28)
        assert training.targets is not None
        assert training.targets.bincount().tolist() == [6000] * 10
        assert training.targets[:4].tolist() == [9, 0, 0, 3]
        # Its mean and deviation in units of 255 are known to be 0.2860 and 0.3530.
        low, high = float(training.inputs.min()), float(training.inputs.max())
        assert 1 / (high - low) == pytest.approx(0.3530, abs=1e-4)
        assert -low / (high - low) == pytest.approx(0.2860, abs=1e-4)
