"""The files around the package agree with each other: workflows, hooks, metadata, pinned versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import dream_sc

ROOT = Path(dream_sc.__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))

pytestmark = pytest.mark.skipif(not WORKFLOWS, reason="the repository is not around the package")


def _yaml(path: Path | str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_asks_for_little_and_ends(path: Path) -> None:
    workflow = _yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True]  # `on`, which YAML 1.1 reads as a truth value
    for name, job in workflow["jobs"].items():
        assert job["timeout-minutes"] <= 90, name
        assert all(("uses" in step) != ("run" in step) for step in job["steps"]), name


def test_the_matrix_has_every_python_with_every_set_of_dependencies() -> None:
    matrix = _yaml(".github/workflows/test.yaml")["jobs"]["test"]["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(_project()["project"]["classifiers"]))
    assert matrix["python"] == classifiers
    assert _project()["project"]["requires-python"] == f">={classifiers[0]}"
    assert "exclude" not in matrix
    options = {row["dependencies"]: row["options"] for row in matrix["include"]}
    assert list(options) == matrix["dependencies"] == ["lowest", "locked", "newest", "prerelease"]
    assert "--resolution lowest-direct" in options["lowest"]
    assert "--constraint constraints.txt" in options["locked"]
    assert "--prerelease allow" in options["prerelease"]


def test_a_release_is_published_by_tag_without_a_stored_token() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yaml").read_text()
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert workflow["jobs"]["publish"]["needs"] == ["build"]
    assert "secrets." not in text


def test_hooks_run_the_pinned_ruff() -> None:
    ruff = next(repo for repo in _yaml(".pre-commit-config.yaml")["repos"] if repo["repo"].endswith("/ruff-pre-commit"))
    assert ruff["rev"] == "v" + _pinned()["ruff"]
    assert [hook["id"] for hook in ruff["hooks"]] == ["ruff-check", "ruff-format"]


def test_every_direct_dependency_of_the_tests_is_pinned() -> None:
    project = _project()
    asked = [
        *project["project"]["dependencies"],
        *project["dependency-groups"]["test"],
        *project["dependency-groups"]["lint"],
    ]
    names = {re.match(r"[\w.-]+", line)[0] for line in asked}
    assert not names - set(_pinned())
    assert all(">=" in line for line in asked)


def test_the_site_is_built_with_the_pinned_versions() -> None:
    config = _yaml(".readthedocs.yaml")
    assert config["version"] == 2
    assert config["sphinx"] == {"configuration": "docs/conf.py", "fail_on_warning": True}
    assert any("constraints.txt" in line for line in config["build"]["jobs"]["install"])
    assert (ROOT / config["sphinx"]["configuration"]).exists()


@pytest.mark.parametrize("path", [path for path in FORMS if path.name != "config.yml"], ids=lambda path: path.name)
def test_an_issue_form_asks_named_questions(path: Path) -> None:
    form = _yaml(path)
    assert {"name", "description", "body"} <= set(form)
    names = [question["id"] for question in form["body"]]
    assert len(names) == len(set(names)) >= 3
    assert any(question.get("validations", {}).get("required") for question in form["body"])


def test_the_entry_for_the_registry_agrees_with_the_package() -> None:
    entry, project = _yaml(".github/scverse/meta.yaml"), _project()["project"]
    required = {"name", "description", "project_home", "documentation_home", "install", "license", "tags", "version"}
    assert required | {"contact", "category"} <= set(entry)
    assert entry["install"]["pypi"] == project["name"]
    assert (entry["version"], entry["license"]) == (project["version"], project["license"])
    assert (entry["project_home"], entry["documentation_home"]) == (
        project["urls"]["Source"],
        project["urls"]["Documentation"],
    )


def test_actions_are_kept_up_to_date() -> None:
    updates = _yaml(".github/dependabot.yml")["updates"]
    assert [update["package-ecosystem"] for update in updates] == ["github-actions"]


CONDA = {"matplotlib": "matplotlib-base", "torch": "pytorch"}  # by another name there


def test_the_recipe_for_conda_has_the_dependencies_of_the_package() -> None:
    project, text = _project(), (ROOT / "conda" / "recipe.yaml").read_text()
    recipe = yaml.safe_load(text)
    wanted = [re.match(r"([\w.-]+)>=([\w.]+)$", d).groups() for d in project["project"]["dependencies"]]  # type: ignore[union-attr]
    run = dict(line.split(" >=") for line in recipe["requirements"]["run"])
    assert run.pop("python") == project["project"]["requires-python"].removeprefix(">=")
    assert run == {CONDA.get(name, name): least for name, least in wanted}
    assert recipe["context"]["version"] == project["project"]["version"]
    assert recipe["package"]["name"] == project["project"]["name"]
    (entry,) = project["project"]["scripts"].items()
    assert recipe["build"]["python"]["entry_points"] == [" = ".join(entry)]
    assert {recipe["about"][k] for k in ("homepage", "documentation")} <= set(project["project"]["urls"].values())
    assert (ROOT / recipe["about"]["license_file"]).is_file()


def test_the_changelog_names_what_is_not_released_first() -> None:
    sections = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert sections[0] in ("Unreleased", _project()["project"]["version"])
