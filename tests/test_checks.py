"""The Makefile, pre-commit and CI run the same checks."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from tests.helpers.command import ROOT


def test_pre_commit_runs_every_command_of_make_lint():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = {hook["entry"] for repository in config["repos"] for hook in repository["hooks"]}
    assert {line.strip() for line in recipe.splitlines()} <= entries


def test_pre_commit_accepts_its_configuration():
    program = Path(sys.executable).parent / "pre-commit"
    done = subprocess.run([program, "validate-config"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_ci_runs_the_script_of_all_checks_with_no_more_rights_than_reading():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    [job] = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in actions)
