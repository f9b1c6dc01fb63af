"""The pages: up to date with the code, whole links, every hook, and every example really run."""

import ast
import importlib
import json
import logging
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, fill_adaptation, make_record, one_line_error, tree, write_base, write_plugin
from data_helpers import write_dataset

from xvla_platform.cli.main import main
from xvla_platform.errors import RefusedError

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXECUTED = {
    "plugins/my_arm/plugin.py",
    "acme_robots/__init__.py",
    "open_with_peft.py",
    "one_chunk.py",
    "act.py",
    "act_fast.py",
    "hot_motor.py",
}


def blocks(language: str) -> Iterator[tuple[Path, str, str]]:
    """(page, title, text) of every code block in that language."""
    for page in PAGES:
        for name, title, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if name == language:
                yield page, title, text


def example(title: str, language: str = "python") -> str:
    """The one block of that title."""
    (text,) = [text for _, name, text in blocks(language) if name == title]
    return text


@pytest.fixture(scope="module")
def writer() -> Iterator[ModuleType]:
    """What scripts/write-docs.py is made of, as a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPOSITORY / "scripts"))
        importlib.import_module("docs_from_code.pages")
        yield importlib.import_module("docs_from_code")


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_pages_are_up_to_date(page: Path, writer: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- generated:") == text.count("<!-- end -->")
    assert writer.pages.renewed(text) == text, f"{page.name} is behind the code: run `python scripts/write-docs.py`"


def test_every_hook_is_documented_with_its_exact_signature(writer: ModuleType) -> None:
    from xvla_platform.platform import hookspecs

    page = (DOCS / "plugins.md").read_text(encoding="utf-8")
    functions = {n.name: n for n in ast.parse(Path(hookspecs.__file__).read_text()).body if hasattr(n, "args")}
    names = [name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), "xvla_spec")]
    assert len(names) >= 10
    for name in names:
        assert f"```text\n{writer.code.signature(functions[name])}\n```" in page


def test_every_command_is_documented() -> None:
    from xvla_platform.cli.main import COMMANDS

    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    for name in (*COMMANDS, "record"):
        assert f"\n## xvla {name}\n" in page


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.is_file(), target
        assert not anchor or anchor in anchors(other), target


def test_the_navigation_names_every_page() -> None:
    listed = [
        name for entry in yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"] for name in entry.values()
    ]
    assert sorted(listed) == [page.name for page in PAGES]


def test_every_python_example_is_executed_below() -> None:
    elsewhere = {"plugin-author-guide.md": "test_guide.py", "evaluation.md": "test_environments.py"}
    assert all((REPOSITORY / "tests" / file).is_file() for file in elsewhere.values())
    assert {title for page, title, _ in blocks("python") if page.name not in elsewhere} == EXECUTED


def test_command_lines_parse() -> None:
    """Commands, options and the number of arguments in every `bash` block exist."""
    from xvla_platform.cli.main import cli

    seen = 0
    for page, _, text in blocks("bash"):
        for line in text.splitlines():
            words = line.split("#")[0].split()
            if words[:1] != ["xvla"]:
                continue
            command = cli.get_command(cli.make_context("xvla", [], resilient_parsing=True), words[1])
            assert command is not None, f"{page.name}: {line}"
            parser = command.make_parser(command.context_class(command))
            _, rest, _ = parser.parse_args(words[2:])
            assert not rest, f"{page.name}: {line}"
            seen += 1
    assert seen > 15


def test_the_plan_file_is_one(tmp_path: Path) -> None:
    from xvla_platform.adapt.plans import choose_plan

    (tmp_path / "plan.yaml").write_text(example("plan.yaml", "yaml"))
    plan, source = choose_plan(tmp_path, then="lora", plan=tmp_path / "plan.yaml")
    assert [stage.name for stage in plan.stages] == ["prompt", "lora"]
    assert source.endswith("plan.yaml")


def test_the_robots_own_code(
    adapted: Any, robot: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The observers of the example hear, and its gate stops a push that is no better than holding still."""
    from xvla_platform.adapt.recipe import PROMPT
    from xvla_platform.platform.artifact import load_manifest, seal
    from xvla_platform.platform.files import write_json
    from xvla_platform.platform.plugins import build_manager
    from xvla_platform.platform.registry import place
    from xvla_platform.platform.sharing import push

    folder = write_plugin(adapted.plugins / "my_arm", robot)
    (folder / "plugin.py").write_text(example("plugins/my_arm/plugin.py"))
    hook = build_manager(folder).hook
    with caplog.at_level(logging.WARNING):
        hook.step_finished(stage=PROMPT, step=3, metrics={"loss": 1.0, "grad_norm": 900.0})
        assert not caplog.records
        hook.step_finished(stage=PROMPT, step=4, metrics={"loss": 1.0, "grad_norm": 25000.0})
    assert "stage prompt, step 4: gradient norm 25000" in caplog.text

    def build(position: float) -> Any:
        def fill(version_folder: Path, version: int) -> None:
            fill_adaptation(version_folder, version, robot, value=position)
            rows = [("hold still", 0.2), ("prompt only", position)]
            table = [{"policy": name, "errors": {"position": error}} for name, error in rows]
            write_json(version_folder / "metrics.json", {"table": table})
            seal(version_folder, load_manifest(version_folder))

        return fill

    good, bad = (place(adapted, "my_arm", build(error)) for error in (0.01, 0.3))
    hook.adaptation_finished(manifest=good.manifest, folder=good.folder)
    assert (folder / "adaptations.txt").read_text().startswith("my_arm/v2 prompt ")
    share = tmp_path / "share"
    share.mkdir()
    push(adapted, good.label, f"dir:{share}")
    before = tree(share)
    with pytest.raises(RefusedError, match="my_arm/v3 must not be pushed: position: no better than holding still"):
        push(adapted, bad.label, f"dir:{share}")
    assert tree(share) == before


def test_an_installed_robot(xvla: Any, workspace: Any, robot: dict[str, Any], tmp_path: Path) -> None:
    """The package of the page, laid out as pip would, through the real command line."""
    project = tomllib.loads(example("pyproject.toml", "toml"))["project"]
    site = tmp_path / "site"
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in project["entry-points"]["xvla"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[xvla]", *lines]) + "\n")
    package = site / "acme_robots"
    package.mkdir()
    (package / "__init__.py").write_text(example("acme_robots/__init__.py"))
    write_plugin(package / "acme_arm", {**robot, "name": "acme_arm"})
    write_dataset(package / "acme_arm" / "demonstrations")
    write_base(workspace.root / "base")
    environment = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{site}"}
    words = ("add-embodiment", "acme_arm", "--base", "base")
    result = xvla(*words, cwd=workspace.root, env=environment)
    assert result.returncode == 0, result.stderr
    assert "wrote embodiments/acme_arm" in result.stdout
    assert "no robot of this workspace and no installed one" in one_line_error(xvla(*words, cwd=workspace.root))


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base at the shipped recipe's dimensions, narrowed, with tokenizer and preprocessing."""
    from xvla_platform.adapt.tokenizer import train_tokenizer
    from xvla_platform.modelling.checkpoint import random_model, save_model
    from xvla_platform.modelling.config import XVLAConfig

    folder = tmp_path_factory.mktemp("model")
    recipe = yaml.safe_load((REPOSITORY / "xvla_platform" / "bases" / "xvla-tiny" / "recipe.yaml").read_text())
    config = {**recipe["model"], "depth": 2}
    save_model(random_model(XVLAConfig.from_dict(config), 0), folder / "base")
    train_tokenizer(["pick up the red cube"], 300, folder / "base")
    (folder / "base" / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 96, "width": 96}}))
    (folder / "base" / "domains.json").write_text(json.dumps({"0": "one"}))
    return folder / "base"


@pytest.mark.parametrize("with_lora", [False, True], ids=["prompt only", "LoRA"])
def test_plain_peft_gives_the_policys_chunk(
    small_base: Path, robot: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_lora: bool
) -> None:
    """The three examples of the artifact page, on a folder that holds what an adaptation holds."""
    import numpy as np
    import torch

    from xvla_platform.modelling.checkpoint import load_model
    from xvla_platform.modelling.slot import random_rows
    from xvla_platform.platform.artifact import seal
    from xvla_platform.platform.bases import resolve_base
    from xvla_platform.platform.files import write_json, write_text
    from xvla_platform.platform.records import RECORD_NAME, record_text
    from xvla_platform.policy.adapter import Adapter, inject_lora, lora_state, write_adapter
    from xvla_platform.policy.example import Example, save_example
    from xvla_platform.policy.policy import Observation, load_policy
    from xvla_platform.specs.plan import LoraSpec
    from xvla_platform.specs.records import Manifest, PromptSlot

    for title in ("open_with_peft.py", "one_chunk.py", "act.py"):
        (tmp_path / title).write_text(example(title))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("open_with_peft", "one_chunk", "act"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    act, one_chunk = importlib.import_module("act").act, importlib.import_module("one_chunk").one_chunk

    base = resolve_base(str(small_base))
    slot = PromptSlot(domain_id=12, num_domains=13)
    record = make_record(robot).model_copy(update={"base": base.ref, "slot": slot})
    model, spec, lora = load_model(small_base, num_domains=13), LoraSpec(rank=2, alpha=4), {}
    rows = random_rows(model, seed=1)
    if with_lora:
        inject_lora(model, spec, seed=0)
        generator = torch.Generator().manual_seed(2)
        lora = {name: 0.05 * torch.randn(t.shape, generator=generator) for name, t in lora_state(model).items()}
    folder = tmp_path / "v1"
    folder.mkdir()
    adapter = Adapter(domain_id=12, rows=rows, lora=lora, lora_spec=spec if with_lora else None)
    write_adapter(folder, adapter, base.ref)
    write_text(folder / RECORD_NAME, record_text(record))
    write_json(folder / "stats.json", {})
    images = {name: np.full((96, 96, 3), 90, dtype=np.uint8) for name in ("front", "wrist")}
    state = np.array([0.3, 0.0, 0.2, 0.1, 0.0, 0.2, 0.04])
    observation = Observation(images=images, state=state, instruction="pick up the red cube")
    save_example(folder, Example(observation=observation, seed=3, chunk=np.zeros((10, 20), np.float32)))
    manifest = Manifest(
        embodiment="my_arm", version=1, created="2026-01-01T00:00:00Z", tuning="lora" if with_lora else "prompt",
        base=base.ref, slot=slot, data=record.data, seed=0, versions={}, files={},
    )  # fmt: skip
    seal(folder, manifest)

    answer = act(small_base, folder)
    assert answer.times[-1] == pytest.approx(1.0)
    assert answer.columns.shape == (10, 7)
    assert set(answer.fields) == {"position", "rotation", "gripper"}
    policy = load_policy(folder, base=base)
    names: dict[str, Any] = {"folder": folder, "base": base, "observation": observation}
    exec(example("act_fast.py"), names)
    assert np.array_equal(names["chunk"].model, policy.act(observation, sampler="fast").model)
    words = policy._words(observation.instruction)
    features = policy.mode().encode(policy._frames(observation), policy._preprocess, words)
    proprio = torch.from_numpy(policy.binding.proprio(state[None]))
    noise = torch.randn(1, 10, 20, generator=torch.Generator().manual_seed(3))
    assert np.array_equal(one_chunk(small_base, folder, features, proprio, noise)[0].numpy(), answer.model)


def test_the_example_check_finds_the_hot_motor(
    robot: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The block of the checks page as a plugin's code, over a recording that also holds a temperature."""
    plugin = write_plugin(tmp_path / "plugins" / "my_arm", robot)
    (plugin / "plugin.py").write_text(example("hot_motor.py"))
    heat = {0: 41.0, 1: 82.5, 2: 55.0}
    write_dataset(plugin / "demonstrations", extra={"motor.temperature": lambda episode: heat[episode]})
    write_base(tmp_path / "base")
    words = ["check", str(plugin), "--base", str(tmp_path / "base"), "--workspace", str(tmp_path), "--json"]
    with pytest.raises(SystemExit):
        main(words)
    findings = json.loads(capfd.readouterr().out)["findings"]
    (found,) = [finding for finding in findings if finding["code"] == "ACME101"]
    assert found["measured"] == "82 degrees in episode 1"
    assert found["episodes"] == [1]


def test_pages_make_no_promises() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"\b(TODO|FIXME|TBD|coming soon|not yet implemented)\b", text), page.name
