"""Text forms of values, derived from the types that their classes declare: a new field or class needs no hand work.

A value of a class becomes a JSON array of its fields in order; where several classes are possible, the name of the class comes first. What
was written is read by the names of the fields at the time (`Codec.shapes`), so that an older log is understood as long as what has come
since has a default, and a newer one as long as nothing is missing that has none.

=====================================  ===============================
type                                   JSON
=====================================  ===============================
int, float, str, bool, their NewTypes  as it is
Enum                                   its value
``X | None``                           null, or X
``tuple[X, ...]``                      array
``tuple[X, Y]``, NamedTuple, value     array of the fields
``dict[X, Y]``, ``Mapping[X, Y]``      array of pairs, in order
``A | B``                              array: name of the class, fields
=====================================  ===============================
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, Literal, NamedTuple, NewType, Union, get_args, get_origin, get_type_hints

Encode = Callable[[Any], str]
Decode = Callable[[Any], Any]
Shapes = Mapping[str, tuple[str, ...]]
"""Class name -> names of its fields, in the order in which they are written."""

_quoted: Final = json.encoder.encode_basestring_ascii
_float_repr: Final = float.__repr__
_NOT_NUMBERS: Final = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


class Form(NamedTuple):
    """How a class is written that is not written by its fields."""

    encode: Encode
    """Returns JSON text."""
    decode: Decode
    """Takes what a JSON parser makes of that text."""


class Codec:
    """Encodes values of `root` and everything in them."""

    def __init__(self, root: Any, forms: Mapping[type, Form] | None = None) -> None:
        """
        Args:
            root: a type: a class, or a union of classes.
            forms: classes that are written in a way of their own.

        Raises:
            TypeError: A class declares a field of a type that has no text form here; names both.
        """
        self._root = root
        self._forms = dict(forms or {})
        self._encoders: dict[type, Encode] = {}
        self._shapes: dict[str, tuple[str, ...]] = {}
        self._classes: dict[str, type] = {}
        self.encode: Encode = self._encoder(root, "the root")
        """Return the JSON text, on one line, of a value of the root type."""

    @property
    def shapes(self) -> Shapes:
        """Keep this beside what is encoded: `decoder` needs it."""
        return self._shapes

    def decoder(self, shapes: Shapes | None = None) -> Decode:
        """Return what makes values of parsed JSON that was written under `shapes`; none given: under today's.

        It raises `ValueError` for what is not a value of these classes.
        """
        return _Decoders(self._forms, self._classes, self._shapes if shapes is None else shapes).of(self._root)

    # -- encoders ----------------------------------------------------------------------------------------------------------------
    def _encoder(self, kind: Any, where: str) -> Encode:
        """Return the encoder of a type; `where` is for errors."""
        kind = _plain(kind)
        if kind in _SIMPLE:
            return _SIMPLE[kind]
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal and all(isinstance(each, str) for each in arguments):
            return _quoted
        if origin in (Union, UnionType):
            return self._union_encoder(arguments, where)
        if origin is tuple:
            return self._tuple_encoder(arguments, where)
        if _is_mapping(origin):
            key, item = (self._encoder(each, where) for each in arguments)
            return lambda found: "[" + ",".join([f"[{key(name)},{item(each)}]" for name, each in found.items()]) + "]"
        if isinstance(kind, type):
            return self._class_encoder(kind, where)
        raise TypeError(f"{where} has a type without a text form: {kind}")

    def _union_encoder(self, kinds: tuple[Any, ...], where: str) -> Encode:
        classes = tuple(each for each in kinds if each is not NoneType)
        if len(classes) == 1:
            inner = self._encoder(classes[0], where)
            return lambda found: "null" if found is None else inner(found)
        table: dict[type, Encode] = {}
        for each in classes:
            if not _has_fields(each):
                raise TypeError(f"{where} may hold {each}, which cannot be told from the others by name")
            table[each] = self._named_encoder(each, where)
        if len(classes) == len(kinds):
            return lambda found: table[type(found)](found)
        return lambda found: "null" if found is None else table[type(found)](found)

    def _named_encoder(self, kind: type, where: str) -> Encode:
        self._class_encoder(kind, where)
        return self._compile(kind, named=True)

    def _tuple_encoder(self, kinds: tuple[Any, ...], where: str) -> Encode:
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            item = self._encoder(kinds[0], where)
            return lambda found: "[" + ",".join([item(each) for each in found]) + "]"
        items = tuple(self._encoder(each, where) for each in kinds)
        return lambda found: "[" + ",".join([item(each) for item, each in zip(items, found, strict=True)]) + "]"

    def _class_encoder(self, kind: type, where: str) -> Encode:
        if kind in self._encoders:
            return self._encoders[kind]
        if kind in self._forms:
            encode: Encode = self._forms[kind].encode
        elif issubclass(kind, Enum):
            texts = {member: json.dumps(member.value) for member in kind}
            encode = texts.__getitem__
        elif _has_fields(kind):
            if self._classes.setdefault(kind.__name__, kind) is not kind:
                raise TypeError(f"two classes are called {kind.__name__}")
            # Entered before it is made: classes may hold one another.
            self._encoders[kind] = lambda found: self._encoders[kind](found)
            self._shapes[kind.__name__] = tuple(_hints(kind))
            encode = self._compile(kind)
        else:
            raise TypeError(f"{where} has a type without a text form: {kind.__name__}")
        self._encoders[kind] = encode
        return encode

    def _compile(self, kind: type, *, named: bool = False) -> Encode:
        """Make one function that formats all fields at once: a loop over them would take three times as long, and a master does this for
        every event."""
        names: dict[str, Any] = {"_empty": "[]"}
        parts = [_quoted(kind.__name__)] if named else []
        for n, (name, hint) in enumerate(_hints(kind).items()):
            # By place where there are places: a tuple that stands for a named one is as good.
            field = f"found.{name}" if is_dataclass(kind) else f"found[{n}]"
            whole = self._numbers_text(hint, field)
            if whole:
                parts.append(whole)
                continue
            names[f"_{n}"] = self._encoder(hint, f"{kind.__name__}.{name}")
            is_tuple = get_origin(hint) is tuple
            # Nearly all tuples are empty, and a call for each would be half of the work.
            parts.append(f"{{_{n}({field}) if {field} else _empty}}" if is_tuple else f"{{_{n}({field})}}")
        encode: Encode = eval(f"lambda found: f'[{','.join(parts)}]'", names)
        return encode

    def _numbers_text(self, hint: Any, field: str) -> str:
        """Return what formats whole numbers, and named tuples of nothing else, in place; empty for any other type."""
        kind = _plain(hint)
        if kind is int:
            return f"{{{field}}}"
        if kind in self._forms or not _has_fields(kind) or is_dataclass(kind) or {*map(_plain, _hints(kind).values())} != {int}:
            return ""
        self._class_encoder(kind, field)
        return "[" + ",".join(f"{{{field}[{n}]}}" for n in range(len(_hints(kind)))) + "]"


class _Decoders:
    """Decoders under the shapes of one log."""

    def __init__(self, forms: Mapping[type, Form], classes: Mapping[str, type], shapes: Shapes) -> None:
        self._forms = forms
        self._classes = classes
        self._shapes = shapes
        self._made: dict[type, Decode] = {}

    def of(self, kind: Any) -> Decode:
        kind = _plain(kind)
        origin, arguments = get_origin(kind), get_args(kind)
        if kind in (int, str, bool) or origin is Literal:
            return _as_it_is
        if kind is float:
            return float
        if origin in (Union, UnionType):
            return self._of_union(arguments)
        if origin is tuple:
            return self._of_tuple(arguments)
        if _is_mapping(origin):
            key, item = (self.of(each) for each in arguments)
            return lambda data: {key(name): item(each) for name, each in data}
        return self._of_class(kind)

    def _of_union(self, kinds: tuple[Any, ...]) -> Decode:
        classes = tuple(each for each in kinds if each is not NoneType)
        if len(classes) == 1:
            inner = self.of(classes[0])
            return lambda data: None if data is None else inner(data)
        table = {each.__name__: self._of_class(each, skip=1) for each in classes if each.__name__ in self._shapes}

        def decode(data: Any) -> Any:
            if data is None and len(classes) < len(kinds):
                return None
            if not isinstance(data, list) or not data or data[0] not in table:
                raise ValueError(f"nothing is known of {str(data)[:80]}")
            return table[data[0]](data)

        return decode

    def _of_tuple(self, kinds: tuple[Any, ...]) -> Decode:
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            item = self.of(kinds[0])
            return lambda data: tuple([item(each) for each in data])
        items = tuple(self.of(each) for each in kinds)
        return lambda data: tuple([item(each) for item, each in zip(items, data, strict=True)])

    def _of_class(self, kind: type, *, skip: int = 0) -> Decode:
        if kind in self._forms:
            return self._forms[kind].decode
        if issubclass(kind, Enum):
            return kind
        if skip:
            return self._by_fields(kind, skip)
        if kind not in self._made:
            self._made[kind] = lambda data: self._made[kind](data)
            self._made[kind] = self._by_fields(kind, 0)
        return self._made[kind]

    def _by_fields(self, kind: type, skip: int) -> Decode:
        hints = _hints(kind)
        written = self._shapes.get(kind.__name__, ())
        missing = hints.keys() - set(written) - _defaulted(kind)
        if missing:
            return _unreadable(f"{kind.__name__} was written without {', '.join(sorted(missing))}")
        length = len(written) + skip
        places = [(name, at, self.of(hints[name])) for at, name in enumerate(written, skip) if name in hints]

        def decode(data: Any) -> Any:
            if not isinstance(data, list) or len(data) != length:
                raise ValueError(f"not a {kind.__name__}: {str(data)[:80]}")
            return kind(**{name: item(data[at]) for name, at, item in places})

        return decode


def _plain(kind: Any) -> Any:
    """Look through NewTypes."""
    while isinstance(kind, NewType):
        kind = kind.__supertype__
    return kind


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _has_fields(kind: Any) -> bool:
    return isinstance(kind, type) and (is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields")))


_hinted: Final[dict[Any, dict[str, Any]]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    """Return name and type of every field, in order."""
    found = _hinted.get(kind)
    if found is None:
        hints = get_type_hints(kind)
        found = _hinted[kind] = {name: hints[name] for name in _names(kind)}
    return found


def _names(kind: Any) -> Iterable[str]:
    return [field.name for field in fields(kind)] if is_dataclass(kind) else kind._fields


def _defaulted(kind: type) -> set[str]:
    if is_dataclass(kind):
        return {field.name for field in fields(kind) if field.default is not MISSING or field.default_factory is not MISSING}
    return set(kind._field_defaults)  # type: ignore[attr-defined]


def _float_text(found: float) -> str:
    text = _float_repr(float(found))
    return _NOT_NUMBERS.get(text, text)


def _bool_text(found: bool) -> str:
    return "true" if found else "false"


_SIMPLE: Final[dict[Any, Encode]] = {int: int.__repr__, str: _quoted, float: _float_text, bool: _bool_text}


def _as_it_is(data: Any) -> Any:
    return data


def _unreadable(why: str) -> Decode:
    def decode(data: Any) -> Any:
        raise ValueError(why)

    return decode


def plain(found: Any) -> Any:
    """Return a value as plain data for readers, fields by their names; nothing reads it back."""
    if is_dataclass(found) or hasattr(found, "_fields"):
        return {name: plain(getattr(found, name)) for name in _names(type(found))}
    if isinstance(found, Enum):
        return found.value
    if isinstance(found, Mapping):
        return {str(name): plain(each) for name, each in found.items()}
    if isinstance(found, (list, tuple)):
        return [plain(each) for each in found]
    return found
