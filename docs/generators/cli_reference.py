"""Writes reference/cli.md from the command ``emx`` itself."""

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from explainmyxray.cli.main import app

_HEAD = """# Command line

Generated from the command itself: `emx COMMAND --help` prints the same. In a clone, `emx` is `.venv/bin/emx`;
`emx bench` exists only there.

Exit codes: 0 on success, 1 if something failed, 2 for invalid arguments. With `--json`, a command prints JSON,
one line for each result, and everything for people goes to standard error. `emx --version` prints the
version, and `emx --install-completion` adds
completion to the shell. Commands that talk to a server read `EMX_URL` and `EMX_API_KEY`.

"""


@dataclass(frozen=True)
class Parameter:
    """An argument or an option of a command.

    Attributes:
        names: ``--name`` of an option, ``NAME`` of an argument.
        flag: whether it is an option without a value.
    """

    names: tuple[str, ...]
    kind: str
    flag: bool
    required: bool
    default: str
    help: str

    @property
    def is_option(self) -> bool:
        """Whether it is an option."""
        return self.names[0].startswith("-")


@dataclass(frozen=True)
class Command:
    """A command or a group of commands; a group has no parameters."""

    name: str
    help: str
    parameters: tuple[Parameter, ...] = ()
    group: bool = False


def commands(of: typer.Typer = app, prefix: str = "emx") -> Iterator[Command]:
    """Yield every command with its full name, groups before their commands."""
    for registered in of.registered_commands:
        function = registered.callback
        assert function is not None
        name = registered.name or function.__name__.replace("_", "-")
        yield Command(f"{prefix} {name}", inspect.getdoc(function) or "", tuple(_parameters(function)))
    for group in of.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        name = f"{prefix} {group.name}"
        yield Command(name, str(inner.info.help), group=True)
        yield from commands(inner, name)


def cli_reference() -> str:
    """Return the page."""
    return _HEAD + "".join(map(_described, commands()))


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        hint = hints[name]
        if get_origin(hint) is not Annotated:
            raise TypeError(f"Annotate {name} of {function.__name__} with typer.Option or typer.Argument.")
        kind, info = (
            get_args(hint)[0],
            next(i for i in get_args(hint)[1:] if isinstance(i, OptionInfo | ArgumentInfo)),
        )
        declared = (info.default, *(info.param_decls or ()))  # in Annotated, the first name is the default
        if isinstance(info, OptionInfo):
            own = tuple(each for each in declared if isinstance(each, str) and each.startswith("-"))
            names = own or (f"--{name.replace('_', '-')}",)
        else:
            names = (name.upper(),)
        required = parameter.default is inspect.Parameter.empty
        flag = kind is bool
        default = "" if required or flag else _default(parameter.default)
        yield Parameter(names, "" if flag else _kind(kind), flag, required, default, info.help or "")


def _kind(kind: Any) -> str:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _kind(next(k for k in get_args(kind) if k is not type(None)))
    if origin is list:
        return f"{_kind(get_args(kind)[0])}, several"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return {str: "text", int: "whole number", float: "number"}.get(kind, kind.__name__.lower())


def _default(value: Any) -> str:
    return "" if value in (None, "") else f"`{getattr(value, 'value', value)}`"


def _described(command: Command) -> str:
    level = "##" if command.name.count(" ") == 1 else "###"
    text = f"{level} {command.name}\n\n{command.help}\n\n"
    if command.group:
        return text
    arguments = [p for p in command.parameters if not p.is_option]
    options = [p for p in command.parameters if p.is_option]
    usage = "".join(f" {p.names[0]}" if p.required else f" [{p.names[0]}]" for p in arguments)
    text += f"```text\n{command.name}{' [OPTIONS]' if options else ''}{usage}\n```\n\n"
    if command.parameters:
        text += "| argument or option | type | default | |\n| --- | --- | --- | --- |\n"
        text += "".join(map(_row, (*arguments, *options)))
    return f"{text}\n"


def _row(parameter: Parameter) -> str:
    names = ", ".join(f"`{name}`" for name in parameter.names)
    default = "**required**" if parameter.required else parameter.default
    cells = (names, parameter.kind, default, parameter.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
