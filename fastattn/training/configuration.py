"""What a saved state must have in common with the run that continues it, and where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastattn.checks import integer, printable
from fastattn.training.run_state import MALFORMED, OtherRunError, plain

_LENGTH = ("num_training_steps", "num_warmup_steps")  # of a schedule's settings


def as_json(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it comes back from a file, with lists for tuples."""
    value: dict[str, Any] = json.loads(json.dumps(configuration, allow_nan=False, default=plain))
    return value


def check_configuration(path: Path, values: Mapping[str, Any], configuration: Any, epochs: int) -> None:
    """Raise OtherRunError unless the values of a state have this configuration.

    With another number of epochs, the schedule may have another length.
    """
    there, here, options = values.get("configuration", {}), configuration, values.get("options")
    if not isinstance(options, Mapping) or options.get("epochs") != epochs:
        there, here = _without_length(there), _without_length(here)
    different = list(differences(there, here))
    if different:
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        message = f"{path}: of another model or configuration: {'; '.join(different[:3])}{more}"
        raise OtherRunError(message, values)


def _without_length(configuration: Any) -> Any:
    """A configuration without the steps of a schedule that ends."""
    schedule = configuration.get("schedule") if isinstance(configuration, Mapping) else None
    if not isinstance(schedule, Mapping) or _LENGTH[0] not in schedule:
        return configuration
    return {**configuration, "schedule": {name: x for name, x in schedule.items() if name not in _LENGTH}}


def read_position(path: Path, values: Mapping[str, Any], epochs: int) -> tuple[int, int, int, int, list[int], Any]:
    """Where a saved run is: `step`, `epoch`, `batch`, `log_size`, `epoch_ends` and `planned`, with these `epochs` now.

    Raises OtherRunError for values of another kind, and ValueError if more epochs were begun than `epochs`.
    """
    try:
        step, epoch, batch, size = (integer(name, values[name], 0) for name in ("step", "epoch", "batch", "log_size"))
        ends = [integer("epoch_ends", end, 0) for end in values["epoch_ends"]]
        planned = [[integer("planned", number, 0) for number in entry] for entry in values["planned"]]
        if planned[-1][1] != epochs:
            planned = [*(entry for entry in planned if entry[0] < step), [step, epochs]]
    except MALFORMED as error:
        raise OtherRunError(f"{path}: does not fit this run: {error}", values) from error
    begun = epoch + (batch > 0)
    if begun > epochs:
        raise ValueError(f"{path}: the run has begun epoch {begun}; epochs must be at least {begun}, got {epochs}")
    return step, epoch, batch, size, ends, planned


def differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    """Where two JSON values differ, with the path to each place.

    >>> list(differences({"seed": 1, "batches": {"items": 3}}, {"seed": 1, "batches": {"items": 4}}))
    ['batches.items is 3 there, 4 here']
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in [*here, *(key for key in there if key not in here)]:
            yield from differences(there.get(key), here.get(key), f"{name}.{key}" if name else key)
    elif there != here:
        yield f"{printable(name, 200)} is {_json(there)} there, {_json(here)} here"


def _json(value: Any) -> str:
    return printable(json.dumps(value), 200)
