"""What the documents say exists, and what exists is in the documents."""

import csv
import importlib
import json
import pkgutil
import re
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest
import yaml
from fastapi import FastAPI
from markdown_it import MarkdownIt
from markdown_it.token import Token

from benchmarks import coverage, coverage_peers, environments, learning_general
from grpo import GRPOConfig, rewards
from grpo.advantages import ADVANTAGES
from grpo.evaluation import iqm
from grpo.fields import fields_of
from grpo.hints import Hint
from grpo_platform.api import routes
from grpo_platform.api.errors import FieldProblem, Problem
from grpo_platform.api.openapi import install_openapi
from grpo_platform.api.schemas.experiments import TrainBody
from grpo_platform.api.schemas.models import Comparison
from grpo_platform.api.schemas.sweeps import Sweep, SweepBody, Trial, TrialSeed
from grpo_platform.api.schemas.training import Job
from grpo_platform.core.names import Metric
from grpo_platform.core.request import JobRequest
from grpo_platform.core.settings import Settings
from grpo_platform.core.states import JobStatus
from grpo_platform.sweeps.request import METRICS, SweepRequest
from tests.contract.test_messages import said
from tests.contract.test_repository import TRACKED as TRACKED_FILES

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PAGES = sorted([*DOCUMENTS, *ROOT.glob("examples/*/*.md"), ROOT / "llms.txt"])
API = (ROOT / "docs/api.md").read_text()
ALGORITHM = (ROOT / "docs/algorithm.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
PERFORMANCE = (ROOT / "docs/performance.md").read_text()


def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text())


def fences(path: Path, language: str) -> list[str]:
    return [t.content for t in tokens(path) if t.type == "fence" and t.info == language]


def settings_documented() -> set[str]:
    return set(re.findall(r"^\| `(GRPO_[A-Z_]+)` \|", OPERATIONS, re.MULTILINE))


def test_every_setting_is_documented_and_no_other() -> None:
    assert settings_documented() == {f"GRPO_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_documented_defaults_of_settings(name: str) -> None:
    (row,) = re.findall(rf"^\| `GRPO_{name.upper()}` \| ([^|]*) \|", OPERATIONS, re.MULTILINE)
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        assert row == "number of cores"
    else:
        assert row == ("none" if field.default in (None, ()) else f"`{field.default}`")


def schema() -> dict[str, Any]:
    app = FastAPI()
    for module in pkgutil.iter_modules(routes.__path__, f"{routes.__name__}."):
        app.include_router(importlib.import_module(module.name).router)
    install_openapi(app, secured=False)
    return app.openapi()


SCHEMA = schema()
OPERATIONS_OF = {
    f"{method.upper()} {path}": operation
    for path, operations in SCHEMA["paths"].items()
    for method, operation in operations.items()
}
SECTIONS = dict(re.findall(r"^### `([A-Z]+ /\S*)`\n(.*?)(?=^##|\Z)", API, re.MULTILINE | re.DOTALL))
PROTOCOL = dict(re.findall(r"^\| `([A-Z]+ /v2\S*)` \| (.*) \|$", API, re.MULTILINE))


def test_every_route_is_documented_and_no_other() -> None:
    assert (SECTIONS | PROTOCOL).keys() == OPERATIONS_OF.keys()


def documented(call: str) -> str:
    """What the page says of a call, in its own section and in those that this one links."""
    text = (SECTIONS | PROTOCOL)[call]
    linked = set(re.findall(r"\]\(#([\w-]+)\)", text))
    return text + "".join(SECTIONS[other] for other in SECTIONS if anchor(other) in linked)


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    name = part.get("$ref", "").rpartition("/")[2]
    return dict(SCHEMA["components"]["schemas"][name]) if name else part


def replied(operation: dict[str, Any]) -> dict[str, Any]:
    """Schema of the JSON that a call gives; empty where it gives something else."""
    content = operation["responses"]["200"]["content"]
    return resolved(content.get("application/json", {}).get("schema", {}))


def words_of(part: object) -> set[str]:
    """Names of fields, and the values that they may have, at any depth of a schema."""
    match part:
        case dict():
            part = resolved(part)
            found = {str(value) for value in part.get("enum", ())}
            found |= {str(part[key]) for key in ("const", "default") if key in part}
            if isinstance(fields := part.get("properties"), dict):
                found |= set(fields)
            return found.union(*(words_of(value) for value in part.values()))
        case list():
            return set().union(*(words_of(value) for value in part))
    return set()


@pytest.mark.parametrize("call", sorted(OPERATIONS_OF))
def test_fields_of_a_reply_are_documented(call: str) -> None:
    text = documented(call)
    fields = replied(OPERATIONS_OF[call]).get("properties", {})
    assert [name for name in fields if f"`{name}`" not in text] == []


def test_fields_of_a_comparison_are_documented() -> None:
    text = SECTIONS["POST /models/{name}/promote"]
    words = [*Comparison.model_fields, *words_of({"$ref": "#/components/schemas/Comparison"})]
    assert [word for word in words if f"`{word}`" not in text] == []


def test_metrics_that_a_sweep_can_be_about_are_documented() -> None:
    (row,) = re.findall(r"^\| `metric` \| (.*) \|$", API, re.MULTILINE)
    assert set(re.findall(r"`([a-z]+/\w+)`", row)) == set(METRICS)


NOT_FIELDS = {"true", "false", "null", *ADVANTAGES.names(), *rewards.REWARDS.names(), *JobStatus}
FREE = {
    # words that the schema does not hold: of events, of JSON that is not typed, of another call
    "GET /training/{job_id}/events": {"metrics", "progress", "end"},
    "GET /training/{job_id}/status": {*get_args(Hint), "init_from", "n_eval_episodes"},
    "GET /environments": {"reward_function_type"},
    "POST /train": {
        "features_extractor_class",
        "features_extractor_kwargs",
        "distribution_class",
        "activation_fn",
        "log_std_init",
    },
    "POST /sweeps": {"log"},
    "POST /play": {"name", "kind", "n", "start", "shape", "low", "high"},
    "POST /play/{session_id}/film": {"session", "job", "error", "end", "image_bytes"},
    "POST /models/{name}/scenarios/run": {
        *("held", "share", "low", "high", "mean", "std", "median_us", "p99_us", "answers"),
    },
    "POST /models/{name}/promote": {"train", "promote", "rollback", "kept", "rolled_back"},
}


@pytest.mark.parametrize("call", sorted(OPERATIONS_OF))
def test_documented_fields_exist(call: str) -> None:
    operation = OPERATIONS_OF[call]
    known = words_of(operation) | NOT_FIELDS | FREE.get(call, set())
    known |= {parameter["name"] for parameter in operation.get("parameters", ())}
    named = set(re.findall(r"`([a-z][a-z0-9_]*)`", (SECTIONS | PROTOCOL)[call]))
    assert named - known == set()


def test_documented_fields_of_errors_exist() -> None:
    section = API.partition("\n## Errors\n")[2]
    named = set(re.findall(r"`([a-z][a-z0-9_]*)`", section))
    assert named == {*Problem.model_fields, *FieldProblem.model_fields}


def symptoms() -> list[tuple[str, str]]:
    """(page, message) of every message that a table of symptoms quotes."""
    found = []
    for path in DOCUMENTS:
        for table in re.findall(
            r"^\| (?:you see|症状) \|.*\n\|.*\n((?:\|.*\n)+)", path.read_text(), re.M
        ):
            for cell in re.findall(r"^\| (.*?) \|", table, re.MULTILINE):
                quoted = re.findall(r"`([^`]* [^`]*)`|[\"“「]([^\"”」]+)[\"”」]", cell)
                found += [(path.name, code or text) for code, text in quoted]
    return found


TOLD = [[re.escape(word).replace("x1", ".+") for word in text.split()] for text in said()]


@pytest.mark.parametrize(("page", "message"), symptoms())
def test_quoted_messages_occur(page: str, message: str) -> None:
    words = message.split()
    assert any(
        all(map(re.fullmatch, text[begin : begin + len(words)], words))
        for text in TOLD
        for begin in range(len(text) - len(words) + 1)
    ), f"{page} quotes what nothing says"


def test_there_are_quoted_messages() -> None:
    assert {page for page, _ in symptoms()} >= {"operations.md", "guide.md", "guide.ja.md"}


def test_every_request_field_is_documented_with_its_default() -> None:
    section = API.partition("### `POST /train`")[2].partition("###")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE))
    fields = {field.alias or name: field for name, field in TrainBody.model_fields.items()}
    assert rows.keys() == fields.keys()
    for name, field in fields.items():
        default = field.get_default(call_default_factory=True)
        shown = rows[name].strip("`")
        if name in ("seed", "model_name"):
            assert default is None
        elif isinstance(default, bool) or default is None:
            assert shown == {True: "true", False: "false", None: "null"}[default]
        elif isinstance(default, int | float):
            assert float(shown) == default
        else:
            assert shown == str(default)


@pytest.mark.parametrize(
    ("call", "kind"),
    [("POST /train", GRPOConfig), ("POST /train", JobRequest), ("POST /sweeps", SweepRequest)],
)
def test_every_name_that_a_field_takes_is_documented(call: str, kind: type) -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", SECTIONS[call], re.MULTILINE))
    for field in fields_of(kind).values():
        assert [name for name in field.names or () if f"`{name}`" not in rows[field.name]] == []


@pytest.mark.parametrize("name", sorted(Job.model_fields))
def test_every_field_of_a_job_is_documented(name: str) -> None:
    assert f"`{name}`" in API.partition("/status`")[2].partition("###")[0]


@pytest.mark.parametrize("status", list(JobStatus))
@pytest.mark.parametrize("name", ["api.md", "guide.md", "guide.ja.md"])
def test_every_status_word_is_documented(status: JobStatus, name: str) -> None:
    assert f"`{status.value}`" in (ROOT / "docs" / name).read_text()


def test_every_metric_is_documented_and_no_other() -> None:
    known = {value for key, value in vars(Metric).items() if key.isupper()}
    assert set(re.findall(r"`((?:rollout|train|time|eval)/\w+)`", API)) == known


def test_every_field_of_a_sweep_is_documented_with_its_default() -> None:
    section = API.partition("### `POST /sweeps`")[2].partition("###")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", section, re.MULTILINE))
    assert rows.keys() == SweepBody.model_fields.keys()
    for name in ("n_trials", "metric", "sampler", "pruner", "promote", "max_concurrent_trials"):
        assert rows[name].strip("`") == str(SweepBody.model_fields[name].default)
    shown = documented("GET /sweeps/{sweep_id}")
    for name in (*Sweep.model_fields, *Trial.model_fields, *TrialSeed.model_fields):
        assert f"`{name}`" in shown


def anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_local_links_lead_somewhere(path: Path) -> None:
    for token in tokens(path):
        for child in token.children or []:
            target = child.attrs.get("href") or child.attrs.get("src")
            if target is None or re.match(r"[a-z]+:", str(target)):
                continue
            name, _, fragment = unquote(str(target)).partition("#")
            linked = (path.parent / name).resolve() if name else path
            assert linked.exists(), f"{path.name} links to {target}"
            if fragment:
                headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
                assert fragment in {anchor(heading) for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in "".join(fences(path, "bash")).splitlines():
        words = [
            word for word in line.partition("#")[0].split() if "=" not in word.partition("/")[0]
        ]
        match words:
            case ["make", target]:
                assert target in targets
            case ["pip", "install", "-r", file] | ["python", file] | ["bash", file]:
                assert (ROOT / file).exists()
            case ["pip", "install", "."]:
                pass  # run by tests/e2e/test_installed.py, as a wheel
            case ["mlflow", "run", ".", *_] | ["grpo-platform", *_] | ["export", *_] | []:
                pass  # run by tests/e2e
            case _:
                pytest.fail(f"{path.name}: nothing checks {line!r}")


def test_every_target_of_make_is_in_the_contributors_page_and_no_page_names_another() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        path.name: set(re.findall(r"`(?:\w+=\w+ )?make ([a-z-]+)", path.read_text()))
        for path in DOCUMENTS
    }
    assert targets - named["CONTRIBUTING.md"] == {"help", "install", "clean"}
    assert set().union(*named.values()) <= targets


TRACKED = {str(path.relative_to(ROOT)) for path in TRACKED_FILES}
TOP = "|".join({name.partition("/")[0] for name in TRACKED if "/" in name})
FOLDERS = {str(folder) for name in TRACKED for folder in Path(name).parents}
CODE_SPANS = [
    (path.name, child.content)
    for path in PAGES
    for token in tokens(path)
    for child in token.children or []
    if child.type == "code_inline"
]


def test_files_that_the_pages_name_exist() -> None:
    """Whole paths, ends of paths (`policies/mlp.py`), and tests in them (`test_x.py::test_y`).

    Not those that a page has its reader write.
    """
    missing = []
    written = {
        name for path in PAGES for name in re.findall(r"^# (\w+\.py)$", path.read_text(), re.M)
    }
    for page, text in CODE_SPANS:
        name, _, test = text.partition("::")
        if name in written or not re.fullmatch(rf"(?:{TOP})/[\w./-]*|[\w/]+\.py", name):
            continue
        files = [path for path in TRACKED if f"/{path}".endswith(f"/{name}")]
        there = bool(files) or name.rstrip("/") in FOLDERS
        if test:
            there = any(f"def {test}(" in (ROOT / path).read_text() for path in files)
        if not there:
            missing.append((page, text))
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_says_is_in_a_file_is_there(path: Path) -> None:
    for name, file in re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", path.read_text()):
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{name} in {file}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_of_benchmarks_that_a_page_names_exist_with_their_options(path: Path) -> None:
    called = re.findall(r"python -m benchmarks\.(\w+)((?: --\w+ \w+)*)", path.read_text())
    for name, options in called:
        folder = ROOT / "benchmarks" / name
        file = folder / "__main__.py" if folder.is_dir() else folder.with_suffix(".py")
        source = file.read_text()
        assert all(f'"{option}"' in source for option in re.findall(r"--\w+", options)), name


KINDS = ("reward", "advantage", "distribution", "network", "environment", "route", "backend")


@pytest.mark.parametrize("kind", KINDS)
def test_contributors_find_what_to_write_to_register_and_to_copy(kind: str) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (section,) = re.findall(rf"^### An? {kind}\b.*\n((?:(?!#).*\n)+)", page, re.MULTILINE)
    for step in ("Write", "Register", "Copy"):
        (line,) = re.findall(rf"^- \*\*{step}\*\*(.*\n(?:  .*\n)*)", section, re.MULTILINE)
        files = re.findall(rf"`((?:{TOP})/[\w/.]+)", line)
        assert files, f"{kind}: {step} names no file"
        assert all(file.rstrip("/") in TRACKED | FOLDERS for file in files)


def test_groups_of_entry_points_are_documented_and_no_other() -> None:
    code = [*ROOT.glob("grpo/**/*.py"), *ROOT.glob("platform/**/*.py")]
    sources = [path.read_text() for path in code]
    registries = (t for t in sources if re.search(r"^from grpo\.registry .*\bRegistry\b", t, re.M))
    groups = {group for text in registries for group in re.findall(r'"(grpo\.[a-z_]+)"', text)}
    library = rows_under("By name", (ROOT / "docs/library.md").read_text())
    assert {row[0].strip("`") for row in library} == {*groups, "gymnasium.envs"}


JAPANESE = sorted(path for path in DOCUMENTS if path.name.endswith(".ja.md"))


def english_of(path: Path) -> Path:
    return path.with_name(path.name.replace(".ja.md", ".md"))


@pytest.mark.parametrize("name", ["index.md", "index.ja.md"])
def test_every_page_is_in_the_navigation(name: str) -> None:
    """Which the documentation site is built from, and would refuse to be built without."""
    index = ROOT / "docs" / name
    listed = re.findall(r"^- \[[^\]]+\]\(([^)#]+)", index.read_text(), re.MULTILINE)
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/**/*.ipynb")]
    english = {path for path in pages if not path.name.endswith(".ja.md")} - {
        ROOT / "docs/index.md"
    }
    found = {english_of((index.parent / link).resolve()) for link in listed}
    assert english - found == set()


def test_what_a_newcomer_reads_is_in_japanese() -> None:
    tutorials = {path.name for path in ROOT.glob("docs/tutorials/*.md")}
    english = {name for name in tutorials if not name.endswith(".ja.md")}
    assert tutorials == english | {name.replace(".md", ".ja.md") for name in english}
    translated = {str(english_of(path).relative_to(ROOT)) for path in JAPANESE}
    assert translated >= {"README.md", "docs/index.md", "docs/guide.md"}


@pytest.mark.parametrize("path", JAPANESE, ids=lambda path: str(path.relative_to(ROOT)))
def test_both_languages_say_the_same_and_run_the_same_code(path: Path) -> None:
    english, japanese = (
        [t.info if t.type == "fence" else t.tag for t in tokens(page) if t.level == 0]
        for page in (english_of(path), path)
    )
    assert english == japanese
    for language in ("python", "bash", "text"):
        english, japanese = (
            [without_text(block) for block in fences(page, language)]
            for page in (english_of(path), path)
        )
        assert english == japanese


def without_text(source: str) -> str:
    """Code without comments, docstrings and what is printed."""
    source = re.sub(r"#.*|\"\"\".*?\"\"\"", "", source)
    return re.sub(r"print\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)", "print()", source)


def rows_under(heading: str, page: str = ALGORITHM) -> list[list[str]]:
    """Cells of the first table below a heading of a page, its two first lines left out."""
    section = page.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    table = re.search(r"^(?:\|.*\n)+", section, re.MULTILINE)
    assert table is not None
    lines = table[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_advantage_is_documented_and_no_other() -> None:
    named = {row[0].strip("`") for row in rows_under("Advantages")}
    assert named == set(ADVANTAGES.names())


def test_fields_that_the_algorithms_page_names_exist() -> None:
    known = set(fields_of(GRPOConfig))
    known |= set(ADVANTAGES.names()) | set(fields_of(GRPOConfig)["start_states"].names or ())
    known |= set(rewards.REWARDS.names())
    named = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)+)`", ALGORITHM))
    assert named - known == set()


def test_tests_that_the_algorithms_page_names_exist() -> None:
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", ALGORITHM)
    assert named
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests/algorithm" / file).read_text(), name


def test_figures_on_the_algorithms_page_are_the_benchmarks() -> None:
    measured: dict[tuple[str, str], list[float]] = defaultdict(list)
    with (ROOT / "benchmarks/results/learning.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            measured[row["task"], row["algorithm"]].append(float(row["mean_return"]))
    documented = rows_under("Results")
    assert len(documented) == len({task for task, _ in measured})
    shown = " ".join(cell for row in documented for cell in row)
    for scores in measured.values():
        figures = f"{sum(scores) / len(scores):.1f}", f"{iqm(scores):.1f} ["
        assert all(figure in shown for figure in figures)


@pytest.mark.parametrize("table", learning_general.TABLES)
def test_the_tables_of_tuned_configurations_are_the_benchmarks(table: str) -> None:
    assert f"\n\n{learning_general.table_of(table)}\n\n" in ALGORITHM
    came_to = learning_general.summary(table)
    assert came_to is None or str(came_to) in ALGORITHM


def test_the_version_is_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog or f"## [{version}]" in changelog
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version


def test_the_public_workflow_runs_the_same_script_as_everybody() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    checkout, *_, daily, weekly = job["steps"]
    assert checkout["with"] == {"fetch-depth": 0}  # what older commits trained is tested too
    assert daily == {"run": "bash .ci/run", "timeout-minutes": 45}
    crons = [str(each["cron"]) for each in workflow[True]["schedule"]]  # `on` is YAML's truth
    sundays = f"github.event.schedule == '{crons[1]}'"
    assert weekly == {"run": "make test-all", "timeout-minutes": 100, "if": sundays}
    assert [cron.split()[4] for cron in crons] == ["*", "0"]
    for form in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        assert yaml.safe_load(form.read_text()), form
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert all(f"{package} " in f"{container['onCreateCommand']} " for package in debian_packages())


def debian_packages() -> list[str]:
    """What `.ci/run` installs where it is missing."""
    return re.findall(r"missing\+=\(([\w-]+)\)", (ROOT / ".ci/run").read_text())


@pytest.mark.parametrize(
    ("heading", "results", "columns"),
    [
        ("Inference", "serving_loads", ["p50", "p99", "rate"]),
        ("Jobs", "job_latency", ["median_seconds", "least_seconds", "most_seconds"]),
        (
            "Lists",
            "list_latency",
            ["small_p50_ms", "small_p95_ms", "large_p50_ms", "large_p95_ms", "ratio_p95"],
        ),
        ("Pages", "page_latency", ["usable_median_ms", "usable_worst_ms"]),
        ("Viewers", "viewer_cost", ["median", "least", "greatest"]),
        ("Jobs on a Ray cluster", "ray_scaling", ["seconds", "jobs_per_minute", "speedup"]),
    ],
)
def test_figures_of_performance_are_the_benchmarks(
    heading: str, results: str, columns: list[str]
) -> None:
    with (ROOT / f"benchmarks/results/{results}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = rows_under(heading, PERFORMANCE)
    assert shown
    for cells, row in zip(shown, rows, strict=False):
        for cell, column in zip(cells[-len(columns) :], columns, strict=True):
            last_digit = 10.0 ** -len(cell.partition(".")[2])
            assert abs(float(cell) - float(row[column])) <= 0.51 * last_digit, (cells, row)


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_speed_on_the_first_page_is_the_benchmarks(name: str) -> None:
    with (ROOT / "benchmarks/results/training_speed.csv").open(newline="") as file:
        ratios = {row["claim"]: row["ratio"] for row in csv.DictReader(file)}
    page = (ROOT / name).read_text()
    for claim in ("1 environment(s)", "8 environment(s)"):
        ratio = ratios[f"Guide step 2, PPO with {claim}"]
        assert re.search(rf"\b{re.escape(ratio)} ?(?:times|倍)", page), ratio


def test_learning_on_the_first_page_is_the_benchmarks() -> None:
    """Ahead on six of seven, clearly on five, and behind on Pendulum, as its table says."""
    ahead, clearly = set(), set()
    compared = [row for row in rows_under("Results") if row[-1]]
    for task, *_, ours, _, _, theirs in compared:
        (iqm, low, _), (peer, _, high) = (
            map(float, re.findall(r"-?[\d.]+", cell)) for cell in (ours, theirs)
        )
        ahead |= {task} if iqm > peer else set()
        clearly |= {task} if low > high else set()
    assert (len(compared), len(ahead), len(clearly)) == (7, 6, 5)
    assert {row[0] for row in compared} - ahead == {"Pendulum"}
    page = " ".join((ROOT / "README.md").read_text().split())
    assert "is ahead on six, on five of them with intervals that do not overlap" in page


def test_the_table_of_environments_is_the_benchmarks() -> None:
    page = (ROOT / "docs/environments.md").read_text()
    assert f"\n\n{environments.table()}\n\n" in page
    with (ROOT / "benchmarks/results/convolution_speed.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            least, most = float(row["least"]), float(row["most"])
            assert f"{float(row['median']):.1f} [{least:.1f}, {most:.1f}]" in page, row


def test_the_tables_of_coverage_are_the_benchmarks() -> None:
    page = (ROOT / "docs/comparisons.md").read_text()
    for table in (coverage.table(), coverage.attainable_table(), coverage_peers.table()):
        assert f"\n\n{table}\n\n" in page
    assert coverage.summary() in page.replace("\n", " ")


def test_figures_of_promotion_are_the_benchmarks() -> None:
    with (ROOT / "benchmarks/results/promotion.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    section = PERFORMANCE.partition("\n## Promotion\n")[2]
    shown = re.findall(r"^\| [^|]+ \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \|$", section, re.MULTILINE)
    assert len(shown) >= len(rows)
    for row, figures in zip(rows, shown, strict=False):
        now, before, episodes = (float(text.replace(",", "")) for text in figures)
        assert abs(100 * float(row["promoted"]) - now) <= 0.051, row
        assert abs(100 * float(row["promoted_by_one_look"]) - before) <= 0.051, row
        assert int(row["episodes"]) == episodes
        assert float(row["true_mean"]) > 0 or row["scenario"] == "crash_0.2" or now <= 2.5
