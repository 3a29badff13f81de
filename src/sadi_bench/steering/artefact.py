"""steering.safetensors: an intervention as tensors and one JSON text, and back again.

The JSON stands in the file's metadata under `sadi_bench`: schema, origin (method and settings,
model, template, versions, chosen cells), site, reach, overwrites, cells with their parameters and
sizes, and the plain fields of the class. Nothing in a file is executed: the class is the one that
the method's own module names.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sadi_bench.errors import SettingError
from sadi_bench.models.families import Site
from sadi_bench.steering.intervention import Cell, Intervention, Reach
from sadi_bench.steering.origin import MODEL_FACTS, Origin

SCHEMA = 1
KEY = "sadi_bench"
FILE = "steering.safetensors"
MOST_METADATA = 1 << 26
"""Characters of metadata that are read at most; a grid of 10,000 cells has about a million."""
COMMON = ("cells", "site", "reach", "overwrites")
PLAIN = (str, bool, int, float, type(None))
DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError,
          RecursionError, SafetensorError)  # fmt: skip


class _Damaged(ValueError):
    """Carry what is wrong with a file to the one place that names the file."""


def tensors_of(intervention: Intervention) -> dict[str, Tensor]:
    """Return what was learnt, by its name in the file, on the CPU."""
    found: dict[str, Tensor] = {}
    for each in _saved(type(intervention), learnt=True):
        name, value = each.metadata["name"], getattr(intervention, each.name)
        parts = {name: value}
        if isinstance(value, tuple):
            parts = {f"{name}_{i}": part for i, part in enumerate(value)}
        for key, part in parts.items():
            whole = torch.from_numpy(part) if isinstance(part, np.ndarray) else part
            found[key] = whole.detach().cpu().contiguous().clone()
    return found


def to_bytes(intervention: Intervention) -> bytes:
    """Return the file's bytes, the same for the same intervention.

    Raises:
        SettingError: it has no origin, so that nobody could say which model it fits.
    """
    if intervention.origin is None:
        raise SettingError(
            "steering: it was made by hand and names no model, so it cannot be saved; make it with "
            "sadi_bench.fit, or give it an origin (sadi_bench.steering.origin.origin_of)."
        )
    facts = {
        "schema": SCHEMA,
        "origin": asdict(intervention.origin),
        **_facts_of(intervention),
    }
    # One entry: several would come in any order.
    text = json.dumps(facts, sort_keys=True, allow_nan=False)
    return save(tensors_of(intervention), metadata={KEY: text})


def content_digest(intervention: Intervention) -> str:
    """Hash all that an intervention does, wherever it comes from: its class, facts and tensors."""
    kind = type(intervention)
    facts = [kind.__module__, kind.__qualname__, _facts_of(intervention)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors_of(intervention).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _facts_of(intervention: Intervention) -> dict[str, Any]:
    return {
        "site": intervention.site.value,
        "reach": intervention.reach.value,
        "overwrites": intervention.overwrites,
        "cells": [[dict(cell.params), cell.size] for cell in intervention.cells],
        "fields": {
            each.name: getattr(intervention, each.name)
            for each in _saved(type(intervention), learnt=False)
        },
    }


def read_artefact(path: Path) -> Intervention:
    """Read a file, or the one in a run's folder; see `Intervention.load`."""
    file = path / FILE if path.is_dir() else path
    try:
        with safe_open(file, framework="pt") as opened:
            facts = _facts(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return _rebuilt(facts, tensors)
    except FileNotFoundError as error:
        raise SettingError(
            f"steering={file}: no such file; name a run or a file of one."
        ) from error
    except OSError as error:
        raise SettingError(f"steering={file}: cannot be read ({error.strerror}).") from error
    except SettingError as error:
        raise SettingError(f"steering={file}: {error}") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise SettingError(
            f"steering={file}: damaged, or no steering of sadi-bench ({reason}); run it again."
        ) from error


def _facts(metadata: Mapping[str, str]) -> dict[str, Any]:
    text = metadata.get(KEY, "")
    if not text or len(text) > MOST_METADATA:
        raise _Damaged(f"its metadata has {len(text):,} characters under {KEY!r}")
    facts = json.loads(text)
    schema = facts.get("schema") if isinstance(facts, dict) else None
    if schema != SCHEMA:
        raise SettingError(
            f"of schema {schema}, and this version reads {SCHEMA}; compute the run again with "
            "force=true, or install the version that wrote it."
        )
    return facts


def _rebuilt(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Intervention:
    from sadi_bench.steering.methods import method_class  # it imports what is imported here

    origin = _origin(facts["origin"])
    kind = method_class(str(origin.method["kind"])).intervention
    given: dict[str, Any] = {
        "cells": _cells(facts["cells"]),
        "site": Site(facts["site"]),
        "reach": Reach(facts["reach"]),
        "overwrites": _typed(facts["overwrites"], bool),
        "origin": origin,
    }
    plain, names = dict(facts["fields"]), {f.name for f in _saved(kind, learnt=False)}
    if set(plain) != names:
        raise _Damaged(f"fields {sorted(plain)} instead of {sorted(names)}")
    given |= {name: _plain(value) for name, value in plain.items()}
    given |= _learnt(kind, tensors, origin, Site(facts["site"]))
    intervention = kind(**given)
    layers = [intervention.first_layer(cell) for cell in range(len(intervention.cells))]
    if min(layers) < 0 or any(chosen >= len(layers) for chosen in origin.chosen.values()):
        raise _Damaged("cells that its grid does not have")
    return intervention


def _learnt(
    kind: type[Intervention], tensors: Mapping[str, Tensor], origin: Origin, site: Site
) -> dict[str, Any]:
    """Take every learnt field from the tensors, of finite numbers and sizes that fit together."""
    sizes = {"layer": origin.model["layers"], "width": origin.model["widths"][site.value]}
    sizes["element"] = origin.model["heads"] if site == Site.head else sizes["width"]
    found, left = {}, dict(tensors)
    for each in _saved(kind, learnt=True):
        name, axes = each.metadata["name"], each.metadata["axes"]
        parts = [left.pop(name)] if name in left else []
        while each.metadata["name"] not in tensors and f"{name}_{len(parts)}" in left:
            parts.append(left.pop(f"{name}_{len(parts)}"))
        if not parts:
            raise _Damaged(f"no tensor {name}")
        for part in parts:
            _check_sizes(name, part, axes, sizes)
        found[each.name] = parts[0] if name in tensors else tuple(parts)
    if left:
        raise _Damaged(f"unknown tensors {', '.join(sorted(left))[:80]}")
    return found


def _check_sizes(name: str, tensor: Tensor, axes: str, sizes: dict[str, int]) -> None:
    """Hold a tensor's shape against its axes; the first to name an axis sets its size."""
    wanted = axes.split()
    if wanted and wanted[0].startswith("*") and tensor.ndim == len(wanted) - 1:
        wanted = wanted[1:]
    if tensor.ndim != len(wanted):
        raise _Damaged(f"{name} has the shape {tuple(tensor.shape)}, not [{axes}]")
    for size, axis in zip(tensor.shape, wanted, strict=True):
        expected = int(axis) if axis.isdigit() else sizes.setdefault(axis, size)
        if axis != "_" and size != expected:
            raise _Damaged(f"{name} has the shape {tuple(tensor.shape)}: {axis} is {expected}")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise _Damaged(f"{name} holds numbers that are not finite")


def _origin(facts: Mapping[str, Any]) -> Origin:
    model = {name: _typed(facts["model"][name], kind) for name, kind in MODEL_FACTS.items()}
    for size in (model["layers"], model["heads"], *(model["widths"][s.value] for s in Site)):
        if not 0 < _typed(size, int) < 1 << 24:
            raise _Damaged(f"a size of {size}")
    return Origin(
        method=_typed(facts["method"], dict),
        model=model,
        task=_typed(facts["task"], str),
        template=_typed(facts["template"], str),
        versions={str(k): _typed(v, str) for k, v in facts["versions"].items()},
        chosen={str(k): _typed(v, int) for k, v in facts["chosen"].items() if _typed(v, int) >= 0},
    )


def _cells(found: list[list[Any]]) -> tuple[Cell, ...]:
    cells = []
    for index, (params, size) in enumerate(found):
        for name, value in params.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not name:
                raise _Damaged(f"cell {index}: {str(name)[:20]} is no number")
            if not math.isfinite(value):
                raise _Damaged(f"cell {index}: {name[:20]} is not finite")
        cells.append(Cell(index, params, _typed(size, int)))
    if not cells or cells[0].params:
        raise _Damaged("cell 0 is not the unsteered model")
    return tuple(cells)


def _saved(kind: type[Intervention], *, learnt: bool) -> Iterator[Field]:
    """Yield the fields that are saved by themselves: tensors, or plain values."""
    for each in fields(kind):
        told = each.init and each.metadata.get("saved", True) and each.name not in COMMON
        if told and ("name" in each.metadata) == learnt:
            yield each


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _Damaged(f"{str(value)[:40]!r} is no {kind.__name__}")
    return value


def _plain(value: Any) -> Any:
    """Turn JSON's lists back into tuples; refuse what no field holds."""
    if isinstance(value, list):
        return tuple(_plain(entry) for entry in value)
    if not isinstance(value, PLAIN):
        raise _Damaged(f"{str(value)[:40]!r} is no plain value")
    return value
