"""What tests/mutants.py plants: faults in a source file, in Python by its tree, in C++ by its tokens."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from helpers_no_faults import UNSEEN, UNSEEN_FUNCTIONS


class Fault(NamedTuple):
    """`new` in the place of the bytes [begin, end) of a file, which hold `old`."""

    kind: str
    file: str
    line: int
    begin: int
    end: int
    old: str
    new: str

    def planted(self, source: bytes) -> bytes:
        """The file with the fault."""
        assert source[self.begin : self.end] == self.old.encode()
        return source[: self.begin] + self.new.encode() + source[self.end :]


def faults(file: str, source: bytes) -> list[Fault]:
    """All that can be planted in a file, without what no test can see (helpers_no_faults.py)."""
    text = source.decode()
    for name in UNSEEN_FUNCTIONS if file.startswith("csrc/") else []:  # another text of as many lines
        text = re.sub(rf"^\S.*\b{name}\(.*?^}}", lambda body: re.sub(".+", "grain", body[0]), text, flags=re.M | re.S)
    lines = text.splitlines()
    found = []
    for kind, begin, end, new in _python(source) if file.endswith(".py") else _cpp(source):
        line = source.count(b"\n", 0, begin) + 1
        old = source[begin:end].decode()
        if new != old and not any(re.search(pattern, lines[line - 1]) for pattern in UNSEEN):
            found.append(Fault(kind, file, line, begin, end, old, new))
    return sorted(set(found), key=lambda fault: (fault.begin, fault.kind, fault.new))


Change = tuple[str, int, int, str]  # the kind, begin and end, and what comes there
COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
SIGNS = {"+": "-", "-": "+", "*": "+", "//": "*", "+=": "-=", "-=": "+="}
LOGIC = {"and": "or", "or": "and", "&&": "||", "||": "&&"}
MEMBERSHIP = {"is not": "is", "is": "is not", "not in": "in", "in": "not in"}
OPPOSITES = {"min": "max", "max": "min", "any": "all", "all": "any", "lesser": "greater", "greater": "lesser",
             "minimum": "maximum", "maximum": "minimum"}  # fmt: skip


def _python(source: bytes) -> Iterator[Change]:
    starts = [0, *(match.end() for match in re.finditer(rb"\n", source))]

    def place(node: ast.AST) -> tuple[int, int]:
        return (
            starts[node.lineno - 1] + node.col_offset,  # type: ignore[attr-defined]
            starts[node.end_lineno - 1] + node.end_col_offset,  # type: ignore[attr-defined]
        )

    def text(node: ast.AST) -> str:
        begin, end = place(node)
        return source[begin:end].decode()

    def between(kind: str, left: ast.AST, right: ast.AST, names: dict[str, str]) -> Iterator[Change]:
        begin, end = place(left)[1], place(right)[0]
        pattern = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
        if found := re.search(rf"(?<![\w]){pattern}(?![\w])", source[begin:end].decode()):
            yield kind, begin + found.start(), begin + found.end(), names[found[0]]

    for node in _told_by_tests(ast.parse(source)):
        begin, end = place(node) if hasattr(node, "lineno") else (0, 0)
        match node:
            case ast.Compare():
                for left, right in pairwise([node.left, *node.comparators]):
                    yield from between("comparison", left, right, COMPARISONS | MEMBERSHIP)
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.FloorDiv()) if not _has_text(node):
                yield from between("arithmetic", node.left, node.right, SIGNS)
            case ast.BoolOp():
                for left, right in pairwise(node.values):
                    yield from between("logic", left, right, LOGIC)
            case ast.Constant(value=bool()):
                yield "constant", begin, end, str(not node.value)
            case ast.Constant(value=int()):
                yield "constant", begin, end, str(node.value + 1)
            case ast.Constant(value=float()):
                yield "constant", begin, end, repr(node.value * 2 or 1.0)
            case ast.Slice(lower=lower, upper=upper):
                for bound in (lower, upper):
                    if bound:
                        yield "bound dropped", *place(bound), ""
                        yield "bound", *place(bound), f"({text(bound)}) - 1"
            case ast.Subscript(slice=ast.Name() as name) if name.id.islower() and name.id not in dir(builtins):
                yield "index", *place(name), f"{name.id} - 1"
            case ast.Call(args=[ast.Name() | ast.Attribute() as one, ast.Name() | ast.Attribute() as two, *_]):
                yield "arguments swapped", place(one)[0], place(two)[1], f"{text(two)}, {text(one)}"
            case ast.If(test=test, body=[ast.Raise()], orelse=[]):
                yield "check removed", *place(test), "False"
            case ast.If(test=test) | ast.IfExp(test=test):
                yield "condition", *place(test), f"not ({text(test)})"
            case ast.comprehension(ifs=[test, *_]):
                yield "condition", *place(test), f"not ({text(test)})"
            case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Break() | ast.Continue():
                yield "line removed", begin, end, "pass"
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield "line removed", begin, end, "pass"
        if isinstance(node, ast.Call):
            name = node.func
            word = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
            if word in OPPOSITES:
                stop = place(name)[1]
                yield "opposite", stop - len(word), stop, OPPOSITES[word]


def _told_by_tests(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree, without messages, annotations, decorators and what shows an object."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "exc", "cause"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr | ast.Assert):
                continue
            if isinstance(child, ast.FunctionDef) and child.name in ("__repr__", "__str__"):
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            yield child
            yield from _told_by_tests(child)


def _has_text(node: ast.BinOp) -> bool:
    return any(isinstance(n, ast.JoinedStr) or isinstance(getattr(n, "value", 0), str) for n in ast.walk(node))


def _cpp(source: bytes) -> Iterator[Change]:
    text = source.decode("ascii")
    depth, offset = 0, 0
    for line in _code(text).splitlines(keepends=True):
        directive = line.lstrip()
        if directive.startswith("#if"):
            depth += 1
        elif directive.startswith("#endif"):
            depth -= 1
        # What is under a condition may not be compiled.
        if not depth and not re.match(r"\s*(#|template|static_assert|using|FASTATTN_POINT)|.*\boperator\W", line):
            for kind, begin, end, new in _cpp_line(line, text[offset : offset + len(line)]):
                yield kind, offset + begin, offset + end, new
        offset += len(line)


def _code(text: str) -> str:
    """C++ with blanks in the place of comments and of what is between quotes."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0]) if match[0][0] == "/" else match[0][0] + "_" * (len(match[0]) - 2) + '"'

    return re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'", blank, text, flags=re.DOTALL)


def _cpp_line(line: str, whole: str) -> Iterator[Change]:
    """`whole` has the comments and texts that `line` has not."""
    loop = re.search(r"\bfor \(([^;]*); ([^;]*);", line)
    header = (_closing(line, loop.start(1)) or len(line)) if loop else 0  # changes of its step may never end
    for found in re.finditer(r"(?<= )(<=|>=|==|!=|<|>)(?= )", line):
        yield "comparison", *found.span(), COMPARISONS[found[0]]
    for found in re.finditer(r"(?<=[\w)\]] )(\+=|-=|\+|-|\*)(?= [\w(])", line):
        if header <= found.start():
            yield "arithmetic", *found.span(), SIGNS[found[0]]
    for found in re.finditer(r"(?<= )(&&|\|\|)(?= )", line):
        yield "logic", *found.span(), LOGIC[found[0]]
    for found in re.finditer(r"(?<![\w.])\d+(?![\w.'])", line):
        yield "constant", *found.span(), str(int(found[0]) + 1)
    for found in re.finditer(r"(?<![\w.])(\d+\.\d*(?:e[-+]?\d+)?)f?\b", line):
        yield "constant", *found.span(1), repr(float(found[1]) * 2 or 1.0)
    for found in re.finditer(r"\bif \(", line):
        end = _closing(line, found.end())
        if end and ";" not in line[found.end() : end]:
            yield "condition", found.end(), end, f"!({whole[found.end() : end]})"
            if check := re.match(r"\) (?:return|throw|continue|break)\b[^;]*;$", line[end:].rstrip()):
                yield "check removed", found.start(), end + check.end(), "{}"
    word = r"(?!(?:return|throw|delete|using|const|auto|static|if|for|while|case|default|else)\b)[a-z]"
    if found := re.match(rf"(\s+){word}[\w:.\[\]>()-]*(?:\([^;]*\)| [-+*|&]?= [^;]*);$", line.rstrip()):
        yield "line removed", found.end(1), len(line.rstrip()), ";"
    for found in re.finditer(r"\b(min|max|lesser|greater)(?=\()", line):
        yield "opposite", *found.span(), OPPOSITES[found[0]]
    for found in re.finditer(r"(?<=[\w\])])\[([a-z]\w*)\](?![({])", line):
        if not re.match(r"\s*(?:const |constexpr |static )*[\w:]+ \w+\[", line):
            yield "index", *found.span(1), f"{found[1]} + 1"
    for found in re.finditer(r"\b(\w+)\(([a-z][\w.]*), ([a-z][\w.]*)(?=[,)])", line):
        if found[1] not in OPPOSITES:
            yield "arguments swapped", found.start(2), found.end(3), f"{found[3]}, {found[2]}"
    if loop:
        yield "tail dropped", *loop.span(2), "false"


def _closing(line: str, at: int) -> int:
    """The place of the parenthesis that closes the one before `at`; 0 if it is not in the line."""
    depth = 1
    for i in range(at, len(line)):
        depth += {"(": 1, ")": -1}.get(line[i], 0)
        if depth == 0:
            return i
    return 0
