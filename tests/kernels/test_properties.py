"""What every kernel promises, for arguments that hypothesis thinks of: see helpers_arguments.py.

A failure prints the call and what repeats it. Many more examples, with another seed each time:
pytest tests/kernels/test_properties.py --hypothesis-profile=large
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from helpers import TINY, between_guards
from helpers_arguments import CASES, calls
from helpers_bounds import assert_near
from helpers_draws import Call, Draw, Path, leaves, mapped
from hypothesis import given, settings
from hypothesis import strategies as st

import fastattn
from fastattn import _core, kernels, reference

KERNELS = pytest.mark.parametrize("kernel", sorted(CASES))
WRITTEN = {
    "dbias", "dbiases", "dembedding", "dweight", "dweights", "exp_avg", "exp_avg_sq", "into", "momentum_buffer", "param"
}  # fmt: skip
"""The arguments that are changed when they are given."""
few = settings(max_examples=max(4, settings.default.max_examples // 8))  # type: ignore[union-attr]


def is_written(path: Path) -> bool:
    return path[0] in WRITTEN


def prepared(module: Any, call: Call) -> dict[str, Any]:
    """The arguments, with what another call has to return first: the reserve of a backward pass."""
    if "reserve" not in call.given:
        return call.given
    forward = getattr(module, call.kernel.removesuffix("_backward"))
    known = {name: call.given[name] for name in inspect.signature(forward).parameters if name in call.given}
    *_, reserve = forward(**known, return_reserve=True, **call.given["reserve"])
    return call.given | {"reserve": reserve}


def results(module: Any, kernel: str, arguments: dict[str, Any]) -> list[Any]:
    """Every array that the call returns or changes."""
    result = getattr(module, kernel)(**arguments)
    changed = [array for path, array in leaves(arguments) if is_written(path)]
    number = [np.array(result)] if isinstance(result, float) else []
    return number + [array for _, array in leaves([result])] + changed


def run(call: Call, arguments: dict[str, Any], **more: Any) -> list[Any]:
    """The results of the kernel, of copies of what it changes."""
    copies = mapped(arguments, lambda path, array: array.copy() if is_written(path) else array)
    return results(kernels, call.kernel, copies | more)


def without_denormals(value: Any) -> Any:
    """Kernels take them for 0."""
    return np.where(np.abs(value) < TINY, 0, value) if value.dtype == np.float32 else value.copy()


def doubled(value: Any) -> Any:
    return without_denormals(value).astype(np.float64) if value.dtype == np.float32 else value.copy()


def in_float64(call: Call) -> list[Any]:
    """The results of the reference."""
    given = mapped(call.given, lambda _, array: doubled(array))
    with np.errstate(all="ignore"):
        return results(reference, call.kernel, prepared(reference, Call(call.kernel, given, {})))


def bits(arrays: list[Any]) -> list[Any]:
    return [(array.shape, array.dtype, array.tobytes()) for array in arrays]


def attempt(call: Callable[[], list[Any]]) -> tuple[list[Any], str]:
    """What the call gives, or the message of its error."""
    try:
        return call(), ""
    except (TypeError, ValueError) as error:
        return [], str(error)


def is_named(call: Call, path: Path, message: str) -> bool:
    name = "" if len(path) > 1 else path[0]  # items of lists have names of their own
    return message.startswith(f"{call.kernel}: {name}")


def refused_or_same(call: Call, path: Path, expected: list[Any], arguments: dict[str, Any]) -> bool:
    """Whether the call, with an argument in another place, was refused by name; else its bits are the same."""
    actual, message = attempt(lambda: results(kernels, call.kernel, arguments))
    assert is_named(call, path, message) if message else bits(actual) == bits(expected), message
    return bool(message)


@pytest.fixture(autouse=True)
def settings_of_the_process(restore_runtime: None) -> None:
    """A drawn instruction set and number of threads are put back."""


def some_runtime(data: st.DataObject) -> None:
    fastattn.use_isa(data.draw(st.sampled_from(fastattn.available_isas()), label="isa"))
    fastattn.set_num_threads(data.draw(st.sampled_from((1, 2)), label="threads"))


def test_every_function_has_a_case() -> None:
    """With all of its arguments."""
    public = {name for name in kernels.__all__ if inspect.isfunction(getattr(kernels, name))}
    assert set(CASES) == public


@KERNELS
@few
@given(data=st.data())
def test_values(kernel: str, data: st.DataObject) -> None:
    """They are the reference's, on one thread and on two, alone and in a pass. No input changes."""
    call = data.draw(calls(kernel))
    assert {*call.given, *call.results} == set(inspect.signature(getattr(kernels, kernel)).parameters)
    some_runtime(data)
    ready = prepared(kernels, call)
    before = mapped(ready, lambda _, array: array.copy())
    actual = run(call, ready)
    assert_near(call, mapped(call.given, lambda _, array: doubled(array)), actual, in_float64(call))
    fastattn.set_num_threads(3 - fastattn.num_threads())
    assert bits(run(call, ready)) == bits(actual)
    with _core.Pass():
        deferred = run(call, ready)
    assert bits(deferred) == bits(actual)
    assert bits([array for _, array in leaves(ready)]) == bits([array for _, array in leaves(before)])


def cuts(array: Any) -> Iterator[tuple[str, Any, Callable[[Any], Any]]]:
    """Places for an array: memory, and the view of it that is the array's."""
    shape, dtype, last = array.shape, array.dtype, array.shape[-1] if array.ndim else 1
    for at in ("end", "start"):
        yield at, between_guards(shape, dtype, at), lambda whole: whole
    if array.ndim:
        leading = shape[:-1]
        yield "rows apart", np.full((*leading, last + 5), -1, dtype), lambda whole: whole[..., 3 : 3 + last]
        yield "every second", np.full((*leading, 2 * last), -1, dtype), lambda whole: whole[..., 1::2]
        yield "backwards", np.empty(shape, dtype), lambda whole: whole[::-1]
        yield "Fortran", np.empty(shape[::-1], dtype), lambda whole: whole.T
        yield (
            "axes apart",
            np.full((*(n + 1 for n in leading), last), -1, dtype),
            lambda whole: whole[tuple(slice(n) for n in leading)],
        )
    if dtype.itemsize > 1:
        crooked = np.zeros(array.nbytes + dtype.itemsize, np.uint8)
        yield "crooked", crooked, lambda whole: whole[1 : 1 + array.nbytes].view(dtype).reshape(shape)


@KERNELS
@few
@given(data=st.data())
def test_places(kernel: str, data: st.DataObject) -> None:
    """An argument anywhere else in memory gives the same bits or is refused by name. Nothing beside it is written."""
    call = data.draw(calls(kernel))
    some_runtime(data)
    ready = prepared(kernels, call)
    expected = run(call, ready)
    results_of = {name: np.empty(shape, np.float32) for name, shape in call.results.items()}
    places = dict(leaves(ready | results_of))
    for path in data.draw(st.permutations(list(places)), label="arguments")[:3]:
        array = places[path]
        written = is_written(path) or path[0] in call.results

        def arguments(view: Any, path: Path = path) -> dict[str, Any]:
            if path[0] in call.results:
                return fresh(ready) | {path[0]: view}
            return mapped(fresh(ready), lambda at, other: view if at == path else other)

        for _, whole, cut in cuts(array):
            view = cut(whole)
            view[...] = np.nan if path[0] in call.results else array
            before = whole.copy()
            refused = refused_or_same(call, path, expected, arguments(view))
            if written and not refused:
                cut(before)[...] = view
            assert whole.tobytes() == before.tobytes()
        read_only = array.copy()
        read_only.flags.writeable = False
        assert refused_or_same(call, path, expected, arguments(read_only)) == written


def fresh(arguments: dict[str, Any]) -> dict[str, Any]:
    """With copies of what the call changes."""
    return mapped(arguments, lambda path, array: array.copy() if is_written(path) else array)


@KERNELS
@few
@given(data=st.data())
def test_overlaps(kernel: str, data: st.DataObject) -> None:
    """What is written may be an input, if at all, as a whole: other overlaps are refused, and then nothing changes."""
    call = data.draw(calls(kernel))
    some_runtime(data)
    ready = prepared(kernels, call)
    arrays = dict(leaves(ready))
    results_of = {(name,): np.zeros(shape, np.float32) for name, shape in call.results.items()}
    targets = {
        path: a for path, a in (arrays | results_of).items() if a.size and (path in results_of or is_written(path))
    }
    others = {path: a for path, a in (arrays | results_of).items() if a.size}
    pairs = [(target, other) for target in targets for other in others if target != other]
    expected = run(call, ready)
    for target, other in data.draw(st.permutations(pairs), label="pairs")[:3]:
        size = targets[target].nbytes
        shift = data.draw(st.integers(1 - size // 4, (others[other].nbytes - 1) // 4), label="shift") * 4
        for offset in {0, shift}:
            memory = np.zeros(2 * (size + others[other].nbytes) + 64, np.uint8)
            at = size + (-size) % 8
            views = {
                other: viewed(memory, at, others[other]),
                target: viewed(memory, at + offset, targets[target]),
            }
            order = (target, other) if offset else (other, target)  # a result holds anything
            for path in order:
                views[path][...] = (arrays | results_of)[path]
            if target in results_of:
                views[other][...] = (arrays | results_of)[other]
            check_overlap(call, ready, expected, target, other, views, memory, bool(offset))


def viewed(memory: Any, offset: int, like: Any) -> Any:
    return memory[offset : offset + like.nbytes].view(like.dtype).reshape(like.shape)


def check_overlap(
    call: Call,
    ready: dict[str, Any],
    expected: list[Any],
    target: Path,
    other: Path,
    views: Any,
    memory: Any,
    must: bool,
) -> None:
    arguments = mapped(fresh(ready), lambda path, array: views.get(path, array))
    arguments |= {path[0]: view for path, view in views.items() if path[0] in call.results}
    before = memory.copy()
    actual, message = attempt(lambda: results(kernels, call.kernel, arguments))
    if message:
        assert message.startswith(f"{call.kernel}: ")
        assert "overlap" in message or not must, message
        assert memory.tobytes() == before.tobytes()
    else:
        assert not must, f"{target} overlaps {other}"
        if target[0] in call.results and other[0] not in call.results:
            assert bits(actual) == bits(expected)


SPECIAL = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-41)


@KERNELS
@few
@given(data=st.data())
def test_special_values(kernel: str, data: st.DataObject) -> None:
    """One of them reaches what depends on it and nothing else: elsewhere the bits are the same."""
    call = data.draw(calls(kernel))
    some_runtime(data)
    clean, ideal_clean = run(call, prepared(kernels, call)), in_float64(call)
    places = [path for path, a in leaves(call.given) if a.dtype == np.float32 and a.size]
    if kernel in ("adamw", "sgd"):
        places = [
            path for path in places if path != ("param",)
        ]  # it is multiplied by the weight decay even if that is 0
    if not places:
        return
    path = data.draw(st.sampled_from(places), label="argument")
    array = dict(leaves(call.given))[path].copy()
    values = [value for value in SPECIAL if "l2" not in kernel or abs(value) != 3e38]  # no norm of these in float32
    value = data.draw(st.sampled_from(values), label="value")
    array.reshape(-1)[data.draw(st.integers(0, array.size - 1), label="index")] = value
    spoilt = Call(kernel, mapped(call.given, lambda at, other: array if at == path else other), call.results)
    actual, message = attempt(lambda: run(spoilt, prepared(kernels, spoilt)))
    if message:  # some tables must be finite
        assert is_named(call, path, message), message
        return
    ideal = in_float64(spoilt)
    for now, then, exact, exact_then in zip(actual, clean, ideal, ideal_clean, strict=True):
        if kernel in ("crf_viterbi", "log_softmax_topk") and now.dtype == np.int64:
            continue  # values that differ in float64 may be equal in float32, and their order another one
        with np.errstate(over="ignore"):
            same = (exact == exact_then) & (np.signbit(exact) == np.signbit(exact_then))
            same &= np.isfinite(exact_then.astype(np.float32))
        if np.isfinite(value):  # in float32 its square may be infinite
            same &= np.isfinite(now)
        assert bits([without_denormals(now[same])]) == bits([without_denormals(then[same])])
        if now.dtype.kind == "f" and not np.isfinite(value):
            spoils = np.isnan if np.isnan(value) else lambda x: ~np.isfinite(x)
            assert not (spoils(now) & ~spoils(exact)).any(), "it reaches what does not depend on it"
            # A recurrent layer does not multiply by a state or a gradient that is not given.
            if np.isnan(value) and not kernel.startswith(("lstm", "gru")):
                assert np.isnan(now[np.isnan(exact)]).all(), "it is lost"


JUNK: list[Any] = [
    None, True, 0, -1, 2**70, 0.5, -0.5, float("nan"), float("inf"), "tanh", "\ud800", b"x", [], (), {}, [None],
    object(), np.float32, np.zeros(3, np.float32), np.zeros((2, 2)), np.zeros((1, 2, 3), np.float32),
    np.zeros((), np.float32), np.zeros((0, 4), np.float32), np.zeros(3, np.int64), np.full(2, 2**62),
    np.zeros(2, np.int32), np.zeros(2, object), np.zeros((2,) * 9, np.float32),
    np.broadcast_to(np.float32(1), (3, 4)), np.ma.masked_array(np.zeros(3, np.float32)),
]  # fmt: skip


@KERNELS
@few
@given(data=st.data())
def test_nonsense(kernel: str, data: st.DataObject) -> None:
    """Anything in the place of an argument is refused, and the message begins with the function's name."""
    call = data.draw(calls(kernel))
    ready = prepared(kernels, call)
    for name in data.draw(st.permutations([*call.given, *call.results]), label="arguments")[:4]:
        for junk in data.draw(st.permutations(JUNK), label="junk")[:6]:
            _, message = attempt(partial(run, call, ready, **{name: junk}))
            assert message.startswith(f"{kernel}: ") or not message, f"{name}: {message}"


@few
@given(data=st.data())
def test_packed_weights(data: st.DataObject) -> None:
    """A PackedMatrix gives the same bits as the weight, and unpacks to it."""
    draw = Draw(data.draw)
    (n, k), groups = draw.sizes(0, 0), draw.among(1, 3, 4)
    weight = draw.floats(n * groups, k)
    for _, whole, cut in cuts(weight):
        view = cut(whole)
        view[...] = weight
        made, message = attempt(lambda view=view: [kernels.PackedMatrix(view, groups)])  # type: ignore[misc]
        if message:
            assert message.startswith("PackedMatrix: weight ")
            continue
        packed = made[0]
        assert packed.shape == weight.shape
        assert bits([packed.unpack()]) == bits([weight])
    x = draw.floats(*draw.rows(), k)
    some_runtime(data)
    assert bits([kernels.linear(x, kernels.PackedMatrix(weight))]) == bits([kernels.linear(x, weight)])
