"""Measure activation steering of language models, honestly and fast.

    import sadi_bench as sb
    lm = sb.load_model("smollm2-135m")
    task = sb.load_task("copa", n_pairs=100)
    steering = sb.fit("sadi-head", lm, task, top_k=[2, 4], strength=[5, 20])
    frame = sb.score(lm, task, steering)

Nothing else is public; docs/python.md tells more. Imported is only what is used.
"""

import os
from typing import TYPE_CHECKING, Any

# MKL then rounds alike whatever the number of threads, so that workers which share the cores find
# the bytes that one process finds. It is read at MKL's first use; other libraries do not know it.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

if TYPE_CHECKING:
    from sadi_bench.door import (
        applied,
        compare,
        fit,
        generate,
        load_model,
        load_run,
        load_task,
        run,
        score,
    )
    from sadi_bench.steering.intervention import Intervention

__version__ = "0.1.0"
__all__ = [
    "Intervention",
    "__version__",
    "applied",
    "compare",
    "fit",
    "generate",
    "load_model",
    "load_run",
    "load_task",
    "run",
    "score",
]


def __getattr__(name: str) -> Any:
    """Import the door when something of it is asked for: torch takes seconds."""
    if name == "Intervention":
        from sadi_bench.steering.intervention import Intervention

        return Intervention
    if name in __all__:
        from sadi_bench import door

        return getattr(door, name)
    raise AttributeError(f"module 'sadi_bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
