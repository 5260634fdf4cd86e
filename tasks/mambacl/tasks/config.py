"""Base of every config of the project, and the one place that turns a wrong value into one clear line."""

import difflib
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails


class Config(BaseModel):
    """A frozen config: unknown fields are errors, and the docstring under a field is its help."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ConfigError(ValueError):
    """A config that cannot be used; the message names each wrong field on a line of its own."""


def parse(kind: Any, value: Any, where: str = "") -> Any:
    """Validate `value` (mappings as read from YAML or JSON) as `kind`, a Config class or any annotation.

    `where` is put before the field names. Raises ConfigError with one line a mistake.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise ConfigError("\n".join(_line(detail, kind, where) for detail in error.errors())) from None


def nearest(word: str, words: list[str]) -> str:
    """' (did you mean ...?)' where one of `words` is close to `word`, else ''."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _line(detail: ErrorDetails, kind: Any, where: str) -> str:
    path = [str(part) for part in detail["loc"]]
    names, model = _walk(kind, path)
    field = ".".join([where, *names] if where else names) or "config"
    if detail["type"] == "extra_forbidden":
        allowed = sorted(model.model_fields) if model else []
        return f"{field}: unknown field{nearest(path[-1], allowed)}; allowed: {', '.join(allowed)}"
    if detail["type"] == "union_tag_invalid":
        context = detail.get("ctx", {})
        allowed = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
        return (
            f"{field}.name: unknown {context['tag']!r}{nearest(context['tag'], allowed)}; allowed: {', '.join(allowed)}"
        )
    if detail["type"] == "union_tag_not_found":
        return f"{field}.name: missing"
    if detail["type"] == "missing":
        return f"{field}: missing"
    if detail["type"] == "too_short":
        counts = detail.get("ctx", {})
        return f"{field}: must have at least {counts['min_length']}, got {counts['actual_length']}"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return (
        f"{field}: {message}"
        if detail["type"] == "value_error"
        else f"{field}: must be {message}, got {detail['input']!r}"
    )


def _walk(kind: Any, path: list[str]) -> tuple[list[str], type[BaseModel] | None]:
    """Drop the union tags from an error's path, and find the model that holds its last part."""
    names: list[str] = []
    holders = _models(kind)
    model = None
    for part in path:
        field = next((m.model_fields[part] for m in holders if part in m.model_fields), None)
        if (tagged := [m for m in holders if _tag(m) == part]) and len(holders) > 1:
            holders, model = tagged, tagged[0]
        elif field is not None:
            model = next(m for m in holders if part in m.model_fields)
            holders = _models(field.annotation)
            names.append(part)
        else:
            model = holders[0] if len(holders) == 1 else model
            names.append(part)
    return names, model


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("name")
    return field.default if field is not None else None


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All config classes inside an annotation such as tuple[Stage, ...] or A | B | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    inner = [getattr(annotation, "__origin__", None), *getattr(annotation, "__args__", ())]
    return list(dict.fromkeys(model for part in inner if part is not None for model in _models(part)))
