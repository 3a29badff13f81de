"""Everything that a run is told: the fields of configs/config.yaml and its groups."""

from dataclasses import dataclass, field, replace
from typing import Any

from sadi_bench.disk import RUNS
from sadi_bench.errors import SettingError, unknown_name
from sadi_bench.models.spec import FinetuneSpec, ModelSpec
from sadi_bench.scoring.judges.spec import JudgeSpec
from sadi_bench.tasks.spec import PROTOCOLS, RELEASED, TaskSpec

SEEDS = 2**32  # what every generator of the libraries takes


@dataclass
class RaySpec:
    """Choose the Ray cluster that workers run on."""

    address: str | None = None
    """auto, HOST:PORT or ray://HOST:PORT of a running cluster; null starts Ray on this machine."""


@dataclass
class RunConfig:
    """Hold everything that decides a run's result, and where it is written."""

    task: TaskSpec = field(default_factory=TaskSpec)
    model: ModelSpec = field(default_factory=ModelSpec)
    method: dict[str, Any] = field(default_factory=dict)
    """`kind` names a module of steering/methods, `name` is for tables; the rest are its fields."""
    finetune: FinetuneSpec = field(default_factory=FinetuneSpec)
    """Whether the model is trained on the pairs' right answers before anything else."""
    protocol: str = "heldout"
    """heldout | paper (the paper's own rows; the oracle alone can be reported) | released.

    released is paper with the procedure of the released code: pairs' prompts are stripped, pairs of
    more than 700 tokens are left out, documents of more than 700 tokens are skipped in steered
    cells, numbers are float32, and the paper's metric chooses.
    """
    judge: JudgeSpec = field(default_factory=JudgeSpec)
    """Who judges the texts that the model writes."""
    select_by: str | None = None
    """Metric that chooses the cell; null: acc, or the task's first where it has none.

    paper: the one that the paper prints, which protocol=released always takes.
    """
    also: list[Any] = field(default_factory=list)
    """Other tasks on whose test rows the chosen cell is scored too, beside the unsteered model.

    Names of tasks, or a task's `name` with settings of its own: [boolq, {name: nli, n_test: 100}].
    """
    seed: int = 0
    """Draws splits, wrong answers, demonstrations and bootstrap samples."""
    token_budget: int | None = None
    """Tokens of one pass; null takes what suits the device. In bfloat16 it moves last digits."""
    workers: int = 1
    """Processes that share the work, each with a model of its own; more than 1 needs `ray`."""
    ray: RaySpec = field(default_factory=RaySpec)
    """Where the workers run."""
    runs_dir: str = RUNS
    force: bool = False
    """Compute again what is already there."""
    keep: bool = False
    """Show a finished run although other code or other libraries made it."""
    debug: bool = False
    """Show tracebacks of user errors."""

    def __post_init__(self) -> None:
        """Refuse here what would otherwise be found out after seconds or minutes."""
        if self.protocol not in PROTOCOLS:
            raise unknown_name("protocol", self.protocol, PROTOCOLS)
        if self.protocol == RELEASED:
            self._take_released_dtype()
        for setting, seed in {"seed": self.seed, "model.seed": self.model.seed}.items():
            if not 0 <= seed < SEEDS:
                raise SettingError(f"{setting}={seed}: choose 0 to {SEEDS - 1}.")
        if self.token_budget is not None and self.token_budget < 1:
            raise SettingError(
                f"token_budget={self.token_budget}: choose at least 1, or null for what suits the "
                "device."
            )
        if self.workers < 1:
            raise SettingError(
                f"workers={self.workers}: choose 1, which computes in this process, or more."
            )
        if self.workers == 1 and self.ray.address is not None:
            raise SettingError(
                f"ray.address={self.ray.address}: workers=1 computes in this process; set workers= "
                "to the number of GPUs that the cluster has, or leave ray.address out."
            )

    def _take_released_dtype(self) -> None:
        if self.model.dtype not in ("auto", "float32"):
            raise SettingError(
                f"model.dtype={self.model.dtype}: protocol=released computes in float32, as the "
                "released code does; choose auto or float32, or protocol=paper."
            )
        self.model = replace(self.model, dtype="float32")

    @property
    def judge_decides(self) -> bool:
        """Whether the judge's scores are what the task measures, and so part of the run."""
        return self.task.process_results == "judged"
