"""What judges what: `auto`, settings that are refused, and what a run's hash is taken of."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from judge_cases import sentences, write_annotated, write_judged

from sadi_bench.errors import SettingError
from sadi_bench.scoring.judges import choosing, origins
from sadi_bench.scoring.judges.choosing import judge_fingerprint, judge_of, resolved_judge
from sadi_bench.scoring.judges.spec import HEEDED, JudgeSpec

CONFIGS = Path(__file__).parents[3] / "configs" / "judge"
PAPERS = {
    "pretrained": "tomh/toxigen_hatebert",
    "tokenizer": "bert-base-uncased",
    "truth": "allenai/truthfulqa-truth-judge-llama2-7B",
    "info": "allenai/truthfulqa-info-judge-llama2-7B",
}


def refused(spec: dict, task: str = "toxigen", data_dir: str | None = None) -> str:
    with pytest.raises(SettingError) as caught:
        resolved_judge(JudgeSpec(**spec), task, data_dir)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folders(tmp_path):
    write_annotated(tmp_path / "toxigen", sentences())
    write_judged(tmp_path / "truthfulqa", sentences())
    return tmp_path


def test_every_kind_has_a_yaml_of_its_name_that_sets_what_it_reads():
    assert {file.stem for file in CONFIGS.glob("*.yaml")} == set(HEEDED)
    for kind in HEEDED:
        first, *_ = text = (CONFIGS / f"{kind}.yaml").read_text().splitlines()
        settings = yaml.safe_load("\n".join(text))
        assert first.startswith("# sadi-bench ") and f"judge={kind}" in first
        assert settings.pop("defaults") == ["base_judge", "_self_"]
        assert JudgeSpec(**settings).kind == kind
        assert all(settings.get(name, PAPERS[name]) == PAPERS[name] for name in PAPERS)
        assert {name for name in PAPERS if name in HEEDED[kind]} <= set(settings)


def test_none_judges_nothing():
    spec = resolved_judge(JudgeSpec(), "copa")
    assert judge_of(spec) is None
    assert judge_fingerprint(spec) == ""


def test_settings_alone_import_no_library_that_judges():
    program = (
        "import sys, sadi_bench.scoring.judges.spec as s; s.JudgeSpec(); print([*sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "sadi_bench.scoring.judges" in done.stdout, done.stderr
    assert not any(f"'{name}'" in done.stdout for name in ("sklearn", "torch", "transformers"))


def test_an_unknown_kind_is_refused():
    with pytest.raises(SettingError, match=r"judge\.kind=toxigen: unknown. Did you mean toxigen-"):
        JudgeSpec("toxigen")


def test_a_setting_that_the_kind_does_not_read_is_refused():
    with pytest.raises(SettingError, match=r"judge\.truth=x: judge=toxigen-offline .*=truthfulqa"):
        JudgeSpec("toxigen-offline", truth="x")


@pytest.mark.parametrize(("task", "kind"), [("toxigen", "toxigen-offline"),
                         ("truthfulqa_gen", "truthfulqa-offline")])  # fmt: skip
def test_auto_is_the_offline_judge_where_the_papers_cannot_be_had(folders, monkeypatch, task, kind):
    monkeypatch.setenv("SADI_BENCH_DATA", str(folders))
    spec = resolved_judge(JudgeSpec("auto", **PAPERS), task)
    assert spec == JudgeSpec(kind)
    assert resolved_judge(spec, task) == spec


def test_auto_is_the_papers_judge_where_its_folder_is_there(bert, two_judges):
    here = {"pretrained": str(bert), "tokenizer": None, **two_judges}
    spec = resolved_judge(JudgeSpec("auto", **here, device="cpu"), "toxigen")
    assert spec == JudgeSpec("toxigen-hatebert", pretrained=str(bert), device="cpu")
    both = resolved_judge(JudgeSpec("auto", **here, device="cpu"), "truthfulqa")
    assert (both.kind, both.truth, both.info) == ("truthfulqa", *two_judges.values())
    assert both.dtype in ("float32", "bfloat16")
    assert both.pretrained is None


def test_auto_fetches_hatebert_from_the_hub_but_no_7b_judges_without_a_gpu(folders, monkeypatch):
    for module in (choosing, origins):
        monkeypatch.setattr(module, "hub_answers", lambda: True)
    spec = JudgeSpec("auto", **PAPERS, device="cpu")
    assert resolved_judge(spec, "toxigen").pretrained == "tomh/toxigen_hatebert"
    small = resolved_judge(spec, "truthfulqa", str(folders / "truthfulqa"))
    assert small == JudgeSpec("truthfulqa-offline")


def test_auto_knows_no_judge_for_a_task_of_choices():
    assert refused({"kind": "auto", **PAPERS}, "copa").startswith("judge=auto: no judge is known")


@pytest.mark.parametrize(("kind", "setting", "remedy"), [
    ("toxigen-hatebert", "pretrained", "judge=toxigen-offline"),
    ("truthfulqa", "truth", "judge=truthfulqa-offline"),
])  # fmt: skip
@pytest.mark.parametrize("source", ["/no/where", "./nowhere", "nobody/nothing", "a/b/c", None])
def test_a_judge_that_cannot_be_had_is_refused_before_anything_runs(kind, setting, remedy, source):
    message = refused({"kind": kind, setting: source})
    assert message.startswith(f"judge.{setting}{f'={source}: ' if source else ' is not set'}")
    assert remedy in message
    assert ("not in the local cache" in message) == (source in ("nobody/nothing", "a/b/c"))


def test_a_tokenizer_that_cannot_be_had_is_refused(bert):
    spec = {"kind": "toxigen-hatebert", "pretrained": str(bert), "tokenizer": "nobody/nothing"}
    assert refused(spec).startswith("judge.tokenizer=nobody/nothing: ")


def test_a_device_that_is_none_is_refused(bert):
    spec = {"kind": "toxigen-hatebert", "pretrained": str(bert), "device": "gpu"}
    assert refused(spec).startswith("judge.device=gpu: ")


@pytest.mark.parametrize("kind", ["toxigen-offline", "truthfulqa-offline"])
def test_training_data_that_is_not_there_is_refused(kind, tmp_path, monkeypatch):
    assert refused({"kind": kind}).startswith(f"judge={kind}: {kind} is trained on ")
    assert "no folder is set" in refused({"kind": kind})
    assert f"not in {tmp_path}" in refused({"kind": kind}, data_dir=str(tmp_path))
    monkeypatch.setenv("SADI_BENCH_DATA", str(tmp_path))
    assert f"not in {tmp_path}" in refused({"kind": kind})
    here = refused({"kind": kind, "data_dir": str(tmp_path)})
    assert here.startswith(f"judge.data_dir={tmp_path}: ")
    assert "set judge.data_dir" in here


def test_the_judges_own_folder_is_read_before_the_tasks_and_that_before_the_variables(
    folders, tmp_path, monkeypatch
):
    def fingerprint(judges: Path | None, tasks: Path | None) -> str:
        spec = JudgeSpec("toxigen-offline", data_dir=judges and str(judges))
        return judge_fingerprint(spec, tasks and str(tasks))

    others = [write_annotated(tmp_path / str(n), sentences(seed=n)) for n in (1, 2)]
    monkeypatch.setenv("SADI_BENCH_DATA", str(folders))
    first, second = (fingerprint(other, None) for other in others)
    assert len({first, second, fingerprint(None, None)}) == 3
    assert fingerprint(others[0], others[1]) == first
    assert fingerprint(None, others[1]) == second
    assert fingerprint(None, tmp_path / "none") == fingerprint(None, None)


def test_a_task_in_a_folder_of_its_version_finds_the_training_data_above_it(folders):
    version = folders / "truthfulqa" / "v1"
    version.mkdir()
    assert len(judge_fingerprint(JudgeSpec("truthfulqa-offline"), str(version))) == 64


def test_a_local_judges_fingerprint_is_its_files(bert, two_judges):
    assert len(judge_fingerprint(JudgeSpec("toxigen-hatebert", pretrained=str(bert)))) == 64
    assert len(judge_fingerprint(JudgeSpec("truthfulqa", **two_judges))) == 128
