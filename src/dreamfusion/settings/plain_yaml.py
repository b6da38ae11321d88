"""YAML as a person reads it: values are text until their setting says what they mean."""

from __future__ import annotations

import re
from collections.abc import Collection
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml

NULL = "tag:yaml.org,2002:null"
MERGE = "tag:yaml.org,2002:merge"
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
"""A number as JSON writes it: everyone reads it in the same way."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 010 for eight, 1:30 for ninety, yes for true and 2026-01-02 for a date. Here only null is a value;
    all else is text, which ``building.build`` reads as it reads the command line."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag in (NULL, MERGE)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are all different; YAML's own loader silently keeps the last of two."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.YAMLError(
                f"{twice!r} is in it twice, in the group that begins in line {node.start_mark.line + 1}"
            )
        return super().construct_mapping(node, deep)


for _tag in ("int", "float", "bool", "timestamp"):  # also where a page says so itself: !!int 010
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: str(node.value))


def read(text: str, texts: Collection[str] = ()) -> Any:
    """The lists, mappings, texts and plain numbers of a YAML document; under names whose last part is one of ``texts``
    numbers are text as well. yaml.YAMLError if it is none, or if a name is in it twice."""
    try:
        return _with_numbers(_loaded(text), texts)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply, or holds itself") from None


@lru_cache(maxsize=32)
def _loaded(text: str) -> Any:
    """The page as ``_Loader`` has it, which reads slowly, and presets often; ``_with_numbers`` copies it."""
    return yaml.load(text, _Loader)  # a SafeLoader, so no objects are made


def _with_numbers(page: Any, texts: Collection[str]) -> Any:
    if isinstance(page, dict):
        return {
            k: deepcopy(v) if str(k).rpartition(".")[2] in texts else _with_numbers(v, texts) for k, v in page.items()
        }
    if isinstance(page, list):
        return [_with_numbers(value, texts) for value in page]
    if isinstance(page, str) and (found := NUMBER.fullmatch(page)):
        return float(page) if found[2] or found[3] else int(page)
    return page
