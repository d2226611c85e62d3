"""What a user writes after the name of a study: values of recipe fields and of conditions, read from words and checked.

Wrong words raise typer.BadParameter (exit code 2), with the nearest right ones.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from simulacra.drawing import Source
    from simulacra.study import Recipe, Study


def named(pairs: list[str], flag: str, form: str) -> dict[str, str]:
    """`pairs` of name=value; a name may hold dots, a value anything."""
    if wrong := next((pair for pair in pairs if not all(pair.partition("="))), None):
        raise typer.BadParameter(f"{flag} takes {form}, got {wrong!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def rows(text: str) -> list[int]:
    """Row numbers, 0,5,9."""
    try:
        return [int(r) for r in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--through takes row numbers such as 0,5,9, got {text!r}") from error


def years(text: str) -> list[int]:
    """Years, 2012-2015 or 2012,2014."""
    try:
        spans = [[int(year) for year in part.split("-")] for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--years takes years such as 2012-2015 or 2012,2014, got {text!r}") from error
    return [year for span in spans for year in range(span[0], span[-1] + 1)]


def recipe_of(asked: Study[Any, Any], name: str, flags: list[str]) -> Recipe:
    """The study's recipe `name` with the fields that `flags` (--field value ...) change."""
    if name not in asked.recipes:
        raise typer.BadParameter(f"no recipe is called {name!r}; this study has {', '.join(asked.recipes)}")
    return _changed(asked.recipes[name], flags)


def _changed(base: Recipe, flags: list[str]) -> Recipe:
    from pydantic import ValidationError

    try:
        return type(base).model_validate({**base.model_dump(), **_parsed(flags, type(base))})
    except ValidationError as error:
        lines = [_complaint(type(base), problem) for problem in error.errors()]
        raise typer.BadParameter("\n".join(lines)) from error


def changes_of(base: Recipe, flags: list[str]) -> dict[str, Any]:
    """The fields that `flags` change, with their values in the recipe's types."""
    new = _changed(base, flags)
    return {field: value for field in type(base).model_fields if (value := getattr(new, field)) != getattr(base, field)}


def only(flags: list[str], kind: type[Recipe], fields: list[str]) -> list[str]:
    """`flags`, which may name nothing but `fields` of the recipe."""
    for flag in (part.split("=", 1)[0] for part in flags if part.startswith("--")):
        name = flag.removeprefix("--").removeprefix("no-").replace("-", "_")
        if name in kind.model_fields and name not in fields:
            raise typer.BadParameter(f"{flag} decides how a run is trained; of a trained one you can change {as_flags(fields)}")
    return flags


def as_flags(names: Iterable[str]) -> str:
    """Names as a user types them: --frame-of-rest, --shift."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def asked_of(source: Source, flags: list[str], conditions: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Flags that `draw` itself does not know: changes of the recipe's fields of drawing, and conditions, added to those given."""
    kind, known = type(source.recipe), source.asked.conditions
    fields = [field for field in kind.of_drawing() if field != "draws"]  # -n says how many
    rest, recipe, asked = _pairs(flags), [], {name: [value] for name, value in conditions.items()}
    for flag, value in rest:
        name = flag.removeprefix("--").replace("-", "_")
        if name in fields or name.removeprefix("no_") in fields:
            recipe += [flag] if value is None else [flag, value]
        elif name in kind.model_fields and name not in (known or {}):
            only([flag], kind, fields)
        elif value is None:
            raise typer.BadParameter(f"{flag} needs a value")
        else:
            asked.setdefault(name, []).append(value)
    if known is not None:
        for name in asked:
            if name not in known:
                raise typer.BadParameter(_unknown(f"{source.name} cannot be asked for {name!r}", name, [*known, *fields]))
    return changes_of(source.recipe, recipe), {name: ",".join(values) for name, values in asked.items()}


def _pairs(flags: list[str]) -> list[tuple[str, str | None]]:
    """Flags with the value that follows each (--name value, --name=value), or None."""
    pairs: list[tuple[str, str | None]] = []
    for part in flags:
        if part.startswith("--"):
            flag, equals, value = part.partition("=")
            pairs.append((flag, value if equals else None))
        elif pairs and pairs[-1][1] is None:
            pairs[-1] = (pairs[-1][0], part)
        else:
            raise typer.BadParameter(f"{part!r} belongs to no flag")
    return pairs


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    words = " or ".join(as_flags([n]) for n in near)
    return f"{what}; " + (f"did you mean {words}?" if near else f"there is {as_flags(known)}" if known else "it takes no condition")


def _parsed(flags: list[str], kind: type[Recipe]) -> dict[str, Any]:
    fields = {f"--{field.replace('_', '-')}": field for field in kind.model_fields}
    changes: dict[str, Any] = {}
    rest = [part for flag in flags for part in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    while rest:
        flag = rest.pop(0)
        if flag.removeprefix("--no-") != flag and fields.get("--" + flag.removeprefix("--no-")):
            changes[fields["--" + flag.removeprefix("--no-")]] = False
            continue
        if flag not in fields:
            near = difflib.get_close_matches(flag, fields, n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; fields are {', '.join(fields)}"
            raise typer.BadParameter(f"the recipe has no field for {flag!r}{hint}")
        annotation = kind.model_fields[fields[flag]].annotation
        if annotation is bool and (not rest or rest[0].startswith("--")):
            changes[fields[flag]] = True
            continue
        if not rest:
            raise typer.BadParameter(f"{flag} needs a value")
        value = rest.pop(0)
        changes[fields[flag]] = value.split(",") if "tuple" in str(annotation) else None if value.lower() == "none" else value
    return changes


def _complaint(kind: type[Recipe], problem: Mapping[str, Any]) -> str:
    field = str(problem["loc"][0]) if problem["loc"] else "recipe"
    about = kind.model_fields[field].description if field in kind.model_fields else ""
    return f"--{field.replace('_', '-')}: {problem['msg']}, got {problem.get('input')!r}. {about}"


def shown(value: Any) -> str:
    """The value of a field, for a table; long tuples in part."""
    if isinstance(value, tuple) and len(value) > 4:
        return f"{value[0]}, {value[1]}, ... {value[-1]} ({len(value)})"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def allowed(field: Any) -> str:
    """What a field of a recipe takes: a range, the choices, or else its type."""
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}
    parts = [f"{sign} {getattr(m, key)}" for m in field.metadata for key, sign in signs.items() if getattr(m, key, None) is not None]
    if getattr(field.annotation, "__name__", "") == "Literal" or "Literal" in str(field.annotation):
        return str(field.annotation).split("Literal", 1)[1].strip("[]").replace("'", "").replace(", ", "|")
    return ", ".join(parts) or getattr(field.annotation, "__name__", str(field.annotation)).replace("NoneType", "none")
