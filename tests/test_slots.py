"""Which row of the base's tables a robot gets."""

from pathlib import Path
from typing import Any

import pytest
from conftest import make_record, write_base
from hypothesis import given
from hypothesis import strategies as st

from xvla_platform.errors import XvlaError
from xvla_platform.platform.bases import ResolvedBase, resolve_base
from xvla_platform.platform.files import write_text
from xvla_platform.platform.records import record_text
from xvla_platform.platform.slots import _free, _ranges, allocate_slot
from xvla_platform.platform.workspace import Workspace


def register(workspace: Workspace, robot: dict[str, Any], name: str, domain_id: int, fingerprint: str) -> None:
    record = make_record({**robot, "name": name}, domain_id=domain_id, fingerprint=fingerprint)
    write_text(workspace.embodiments / name / "embodiment.yaml", record_text(record))


@pytest.fixture
def base(tmp_path: Path) -> ResolvedBase:
    return resolve_base(str(write_base(tmp_path / "base", num_domains=5)))


def test_the_lowest_row_that_nobody_uses(workspace: Workspace, robot: dict[str, Any], base: ResolvedBase) -> None:
    assert allocate_slot(base, workspace, "a").domain_id == 3
    register(workspace, robot, "a", 3, base.fingerprint)
    assert allocate_slot(base, workspace, "b").domain_id == 4
    assert allocate_slot(base, workspace, "a").domain_id == 3


def test_other_bases_have_tables_of_their_own(workspace: Workspace, robot: dict[str, Any], base: ResolvedBase) -> None:
    register(workspace, robot, "a", 3, "e" * 64)
    assert allocate_slot(base, workspace, "b").domain_id == 3


def test_full_tables_grow_by_one(workspace: Workspace, robot: dict[str, Any], base: ResolvedBase) -> None:
    for name, domain in (("a", 3), ("b", 4)):
        register(workspace, robot, name, domain, base.fingerprint)
    slot = allocate_slot(base, workspace, "c")
    assert (slot.domain_id, slot.num_domains) == (5, 6)
    register(workspace, robot, "c", 5, base.fingerprint)
    assert allocate_slot(base, workspace, "d").domain_id == 6
    with pytest.raises(XvlaError, match=r"taken by robot a; allowed: free: 6"):
        allocate_slot(base, workspace, "d", 3)


@pytest.mark.parametrize(
    ("requested", "message"),
    [(1, r"taken by robot1 \(pretraining.*free: 3-4"), (9, r"beyond the tables.*free: 3-4"), (-1, "beyond")],
)
def test_a_request_that_cannot_be_met_names_the_free_ids(
    workspace: Workspace, base: ResolvedBase, requested: int, message: str
) -> None:
    with pytest.raises(XvlaError, match=message):
        allocate_slot(base, workspace, "a", requested)


def test_a_request_moves_the_robot(workspace: Workspace, robot: dict[str, Any], base: ResolvedBase) -> None:
    register(workspace, robot, "a", 3, base.fingerprint)
    assert allocate_slot(base, workspace, "a", 4).domain_id == 4


@given(st.integers(1, 12), st.sets(st.integers(0, 20)))
def test_free_rows_are_free_and_there_is_always_one(rows: int, taken: set[int]) -> None:
    free = _free(rows, dict.fromkeys(taken, "x"))
    assert free
    assert not set(free) & taken
    assert free == sorted(free)
    assert _ranges(free)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bart"}, "not an X-VLA model"),
        ({"num_domains": 0}, "positive whole number"),
        ({"num_actions": "ten"}, "positive whole number"),
        ({"num_domains": 2}, "names a domain id"),
    ],
)
def test_a_base_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(XvlaError, match=message):
        resolve_base(str(write_base(tmp_path / "base", **change)))


def test_both_public_forms_of_the_configuration_are_read(tmp_path: Path) -> None:
    official = resolve_base(str(write_base(tmp_path / "a")))
    lerobot = resolve_base(str(_lerobot(tmp_path / "b")))
    assert (official.num_actions, official.num_domains, official.num_views) == (10, 8, 3)
    assert (lerobot.num_actions, lerobot.num_domains, lerobot.action_mode) == (32, 30, "ee6d")
    assert lerobot.used_domains[3] == "LIBERO"


def _lerobot(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"type": "xvla", "chunk_size": 32}')
    (folder / "model.safetensors").write_bytes(b"w")
    return folder


def test_the_fingerprint_is_of_the_weights(tmp_path: Path) -> None:
    one = resolve_base(str(write_base(tmp_path / "a")))
    same = resolve_base(str(write_base(tmp_path / "b", num_actions=20)))
    other = resolve_base(str(write_base(tmp_path / "c", weights=b"other")))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    (tmp_path / "a" / "domains.json").unlink()
    with pytest.raises(XvlaError, match=r"Add domains\.json"):
        resolve_base(str(tmp_path / "a"))


@pytest.mark.parametrize("name", ["", "nope", "a/b/c", "./missing", "/missing/base"])
def test_an_unknown_base_lists_what_exists(name: str) -> None:
    with pytest.raises(XvlaError, match="a shipped base"):
        resolve_base(name)
