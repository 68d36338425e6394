"""Datasets of an HDF5 file whose values are written in that file itself.

HDF5 can say that values are elsewhere: in other files, behind links, in other datasets, or nowhere. A file of weights
that somebody else made could so have any file of the machine read as weights. Only what a group holds itself is read,
plain or by gzip, shuffle and fletcher32.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import re
import zlib
from collections.abc import Collection, Iterator
from typing import Any

from fastattn.checks import listed, shown

MOST = 20
"""After more unknown names nothing else is looked at."""

_FILTERS = {"gzip": 1, "shuffle": 2, "fletcher32": 3}  # by HDF5's numbers
_LISTING = "the list of its datasets cannot be read"


def import_h5py() -> Any:
    """The library. Raises ImportError, which names the extra."""
    try:
        import h5py  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError('the HDF5 weights of ELMo need h5py: pip install "fastattn[elmo]"') from error
    return h5py


@contextlib.contextmanager
def damaged(problem: str) -> Iterator[None]:
    """Turns h5py's errors for a bad file into a ValueError that names the file."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{problem}: {error}") from error


def find_datasets(file: Any, source: str, names: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """The datasets of these names, and a sentence for whatever else is there.

    `file` is an open `h5py.File` and `source` its path, for errors. Other groups than those of `names` are not looked
    into. Raises ValueError for a damaged file, for more than `MOST` unknown names, and for a link or a dataset whose
    values are elsewhere; neither is followed.
    """
    h5py = import_h5py()
    groups = {name[: slash.start()] for name in names for slash in re.finditer("/", name)}
    found: dict[str, Any] = {}
    unknown: list[str] = []
    waiting = [""]
    while waiting:
        path = waiting.pop(0)
        with damaged(f"{source}: {_LISTING}"):
            group = file[path or "/"]
            most = len(groups) + len(names) + MOST + 1  # enough for all known names and too many others
            links = [(key, group.get(key, getlink=True)) for key in itertools.islice(group, most)]
        for key, link in links:
            name = f"{path}/{key}" if path else key
            if not isinstance(link, h5py.HardLink):
                kind = {h5py.SoftLink: "a soft link", h5py.ExternalLink: "an external link"}.get(type(link), "a link")
                raise ValueError(f"{source}: {shown(name)} is {kind}; only what the file holds itself is read")
            with damaged(f"{source}: {_LISTING}"):
                kind = group.get(key, getclass=True)
            if kind is h5py.Dataset and name in names:
                with damaged(f"{source}: dataset {shown(name)} cannot be read"):
                    found[name] = group[key]
                    elsewhere = _elsewhere(found[name])  # asking for the shape of a virtual one may open other files
                if elsewhere:
                    raise ValueError(f"{source}: dataset {shown(name)} {elsewhere}")
            if kind is h5py.Group and name in groups:
                waiting.append(name)
            elif name not in found:
                unknown.append(f"{kind.__name__.lower()} {shown(name)} is not known")
            if len(unknown) > MOST:
                raise ValueError(f"{source}: {listed(unknown, '; ')}")
    return found, unknown


def _elsewhere(dataset: Any) -> str:
    made = dataset.id.get_create_plist()
    if made.get_layout() == import_h5py().h5d.VIRTUAL:
        return "is virtual: its values are those of other datasets"
    return "is external: its values are in other files" if made.get_external_count() else ""


def check_storage(datasets: dict[str, Any], source: str) -> None:
    """Raise ValueError unless the values of all datasets are in this file, and take no more memory than they need.

    HDF5 itself gives a fill value for what was never written, inflates a chunk of 500 kB to 512 MB whatever its shape,
    and reads foreign memory behind a chunk that is too short.
    """
    room = os.stat(source).st_size
    for name, dataset in datasets.items():
        with damaged(f"{source}: dataset {shown(name)} cannot be read"):
            problem = _problem(dataset, room)
            room -= dataset.id.get_storage_size()
        if problem:
            raise ValueError(f"{source}: dataset {shown(name)} {problem}")


def _problem(dataset: Any, room: int) -> str:
    """What is wrong with the stored values, or nothing. `room` is what the other datasets leave of the file."""
    made, stored = dataset.id.get_create_plist(), dataset.id.get_storage_size()
    size = dataset.size * dataset.id.get_type().get_size()
    if size and not stored:
        return "was never written"
    if stored > room:
        return f"has {stored} bytes, but the other datasets leave only {room} of the file"
    if dataset.chunks:
        return _problem_of_chunks(dataset, [made.get_filter(i)[0] for i in range(made.get_nfilters())])
    return "" if stored == size else f"has {stored} bytes in the file instead of {size}"


def _problem_of_chunks(dataset: Any, filters: list[int]) -> str:
    if len({*filters} & {*_FILTERS.values()}) < len(filters):
        return f"has the filters {filters} of HDF5; only {', '.join(_FILTERS)} are read, each once"
    shape, chunk = dataset.shape, dataset.chunks
    if math.prod(chunk) > dataset.size:
        return f"has shape {shape} and larger chunks, {chunk}"
    places = [range(0, n, step) for n, step in zip(shape, chunk, strict=True)]
    if dataset.id.get_num_chunks() != math.prod(map(len, places)):
        return "was not written as a whole"
    size = math.prod(chunk) * dataset.id.get_type().get_size()
    for place in itertools.product(*places):
        found = dataset.id.get_chunk_info_by_coord(place).size
        if filters and found is not None:
            skipped, data = dataset.id.read_direct_chunk(place)
            found = _size_behind(filters, skipped, data, size)
        if found != size:
            return f"has a damaged chunk at {place}"
    return ""


def _size_behind(filters: list[int], skipped: int, data: bytes, size: int) -> int:
    """How many bytes a chunk has when its filters are undone; -1 if they cannot be, any number if more than `size`."""
    count = len(data)
    for i, kind in reversed([*enumerate(filters)]):
        if skipped >> i & 1:
            continue
        if kind == _FILTERS["fletcher32"]:
            count -= 4
        elif kind == _FILTERS["gzip"]:
            stream = zlib.decompressobj()
            try:
                count = len(stream.decompress(data[:count], size + 5))  # a fletcher32 inside has 4
            except zlib.error:
                return -1
            if count < size + 5 and not stream.eof:
                return -1
    return count
