"""Running the cells: one process each, one after the other, each result kept as soon as it is there."""

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xvla_platform import __version__
from xvla_platform.bench.cells import GROUPS, Cell, cells_of, comparisons_of
from xvla_platform.bench.report import chunk_difference, figures, needed, ratios
from xvla_platform.bench.sizes import size_of
from xvla_platform.errors import XvlaError
from xvla_platform.platform.files import read_json, write_json

PEER = Path(__file__).with_name("peer.py")
PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0, "L4": 121.0}  # dense bf16 TFLOP/s
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run of the bench.

    Attributes:
        size: A named size, or a base.
        peer_python: A Python in which LeRobot and its X-VLA are installed.
        plugin: Folder of the robot whose recordings the input pipeline reads.
        command: What was typed, to be kept with the results.
        only: Kinds of steps and samplers to measure; empty: all.
        whole: Take all thousand steps of the end-to-end comparison.
        scratch: Where the random base is written while the run lasts; None: the system's temporary folder.
        peak_tflops: The GPU's peak in the type that is computed in; None: what is known of it.
    """

    groups: tuple[str, ...]
    size: str
    views: tuple[int, ...]
    peer_python: str | None
    plugin: Path
    device: str
    threads: int
    rounds: int
    limit_s: float
    command: str = ""
    only: tuple[str, ...] = ()
    whole: bool = False
    scratch: Path | None = None
    peak_tflops: float | None = None

    @property
    def fixed(self) -> dict[str, Any]:
        """What a resumed run must share with the one that it continues."""
        return {"size": self.size, "device": self.device, "threads": self.threads, "peer": self.peer_python is not None}


def plan(settings: Settings) -> list[Cell]:
    """The cells of a run, in order."""
    cells = cells_of(
        settings.groups,
        size_of(settings.size),
        settings.views,
        peer=settings.peer_python is not None,
        samplers=samplers_for(settings.device),
        absent=lacking(settings.device),
        whole=settings.whole,
    )
    names = {name for cell in cells for name in _names(cell)}
    unknown = sorted(set(settings.only) - names)
    if unknown:
        raise XvlaError("no such cell", field="--only", found=unknown[0], allowed=sorted(names))
    return [cell for cell in cells if not settings.only or set(settings.only) & _names(cell)]


def samplers_for(device: str) -> list[str]:
    """The samplers whose cost does not depend on what the robot sees, and that can run here; the exact one first."""
    import torch

    from xvla_platform.modelling.sampling import SAMPLERS, unavailable

    plain = [sampler for sampler in SAMPLERS.values() if not sampler.reuse]
    return [sampler.name for sampler in plain if unavailable(sampler, torch.device(device)) is None]


def lacking(device: str) -> set[str]:
    """Kinds of steps for which something is not installed here: bitsandbytes, or what torch compiles with."""
    compiler = find_spec("triton") if device == "cuda" else shutil.which(os.environ.get("CXX", "g++"))
    there = {"full_frugal": find_spec("bitsandbytes"), "full_compiled": compiler}
    return {kind for kind, found in there.items() if found is None}


def run(settings: Settings, out: Path, tell: Callable[[Cell, dict[str, Any] | None], None]) -> dict[str, Any]:
    """Measure every cell that `out` does not hold yet; returns and keeps the whole report.

    Args:
        tell: Called with a cell before it runs, and with its figures after.
    """
    check(settings)
    cells, results = plan(settings), _continued(out, settings)
    missing = [cell for cell in cells if cell.key not in results["cells"]]
    with _base(settings, missing, results) if missing else nullcontext(Path()) as folder:
        for cell in missing:
            tell(cell, None)
            results["cells"][cell.key] = found = run_cell(cell, settings, folder)
            write_json(out, results)
            tell(cell, figures(cell, found, results["flops"], _peak(settings, found)))
    report = {**results, "command": settings.command, "report": summarise(settings, cells, results)}
    write_json(out, report)
    return report


def check(settings: Settings) -> None:
    """Refuse what would fail only after the first cells were measured."""
    import torch

    if settings.device == "cuda" and not torch.cuda.is_available():
        raise XvlaError("there is no CUDA device here", field="--device", found="cuda", allowed="cpu")
    if settings.peer_python is not None:
        _check_peer(settings.peer_python)
    elif settings.groups == ("pipeline",):
        raise XvlaError(
            "the input pipeline is measured against LeRobot's, and there is no peer",
            field="--peer-python",
            hint="python -m venv peer && peer/bin/pip install 'lerobot[xvla,peft,dataset]==0.6.1'",
        )


def _check_peer(python: str) -> None:
    code = "import lerobot.policies.xvla.modeling_xvla, peft, transformers"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=_environment(1), check=False)
    except OSError as error:
        raise XvlaError(f"cannot be run: {error.strerror}", field="--peer-python", found=python) from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise XvlaError(
            f"has no X-VLA of LeRobot's: {last}",
            field="--peer-python",
            found=python,
            hint="install 'lerobot[xvla,peft,dataset]==0.6.1' there",
        )


def run_cell(cell: Cell, settings: Settings, folder: Path) -> dict[str, Any]:
    """Measure one cell in a process of its own."""
    from xvla_platform.platform.plugins import load_plugin

    spec: dict[str, Any] = {
        "kind": cell.kind,
        "folder": str(folder),
        "device": settings.device,
        "threads": settings.threads,
        "rounds": settings.rounds,
        "warmup": 1,
        "limit_s": settings.limit_s,
        **cell.options,
    }
    if cell.group == "pipeline":
        plugin = load_plugin(settings.plugin)
        spec |= {"data": str(plugin.folder), "dataset": str(plugin.folder / (plugin.spec.dataset.path or ""))}
    theirs = settings.peer_python is not None and cell.side != "ours"
    return _process(spec, settings, settings.peer_python if theirs else None, cell.about)


def _process(spec: dict[str, Any], settings: Settings, peer: str | None, about: str) -> dict[str, Any]:
    # Not resolved: the link is what tells an interpreter its environment.
    python = sys.executable if peer is None else os.path.abspath(peer) if os.sep in peer else peer
    command = [python, "-m", "xvla_platform.bench.ours"] if peer is None else [python, str(PEER)]
    with tempfile.TemporaryDirectory(prefix="xvla-bench-") as scratch:
        given, answer = Path(scratch) / "spec.json", Path(scratch) / "result.json"
        given.write_text(json.dumps(spec))
        done = subprocess.run(
            [*command, str(given), str(answer)],
            capture_output=True,
            text=True,
            check=False,
            cwd=scratch,
            env=_environment(settings.threads, spec.get("device", "cpu")),
        )
        if done.returncode or not answer.is_file():
            lines = done.stderr.strip().splitlines() or ["no message"]
            killed = "it was killed, as a rule for want of memory" if done.returncode in (-9, 137) else lines[-1]
            raise XvlaError(
                f"the process ended early: {killed}",
                field=about,
                hint="the cells before it are kept; the same command goes on behind them",
            )
        found: dict[str, Any] = json.loads(answer.read_text())
        return found


def _environment(threads: int, device: str = "cpu") -> dict[str, str]:
    """One way to compute for every process: so many threads, waiting without spinning, no network."""
    package = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(part for part in (package, os.environ.get("PYTHONPATH", "")) if part)
    set_ = {
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, **set_, **hidden}


@contextmanager
def _base(settings: Settings, cells: list[Cell], results: dict[str, Any]) -> Iterator[Path]:
    """The base of the run, written to a temporary folder and removed with it; its operations are counted on the way."""
    with tempfile.TemporaryDirectory(prefix="xvla-bench-", dir=settings.scratch) as scratch:
        spec = {"kind": "base", "size": settings.size, "folder": f"{scratch}/base", "threads": settings.threads}
        spec["count"] = needed(cells)
        found = _process(spec, settings, None, "the random base")["flops"]
        for views, counts in found.items():
            results["flops"].setdefault(views, {}).update(counts)
        yield Path(scratch) / "base"


def _continued(out: Path, settings: Settings) -> dict[str, Any]:
    """The results that an interrupted run left in `out`, or none; those of other settings are refused."""
    fresh = {
        "schema_version": SCHEMA,
        **settings.fixed,
        "machine": machine(),
        "version": __version__,
        "flops": {},
        "cells": {},
    }
    if not out.is_file():
        return fresh
    known = read_json(out)
    # Ratios are of one run: cells of another machine, or of other libraries, are no part of it.
    found = {key: known.get(key) for key in ("schema_version", "version", *settings.fixed)} | known.get("machine", {})
    wanted = {key: fresh[key] for key in ("schema_version", "version", *settings.fixed)} | fresh["machine"]
    other = [key for key in wanted if found.get(key) != wanted[key]]
    if other:
        raise XvlaError(
            "holds results of other settings, or of another machine",
            file=out,
            found=", ".join(f"{key} {found.get(key)}" for key in other),
            allowed=", ".join(f"{key} {wanted[key]}" for key in other),
            hint="give --out another name, or remove the file",
        )
    return {**fresh, "flops": known["flops"], "cells": known["cells"]}


def summarise(settings: Settings, cells: list[Cell], results: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of every cell and every ratio."""
    found = results["cells"]
    rows = {
        cell.key: figures(cell, found[cell.key], results["flops"], _peak(settings, found[cell.key]))
        for cell in cells
        if cell.key in found
    }
    pairs = comparisons_of(cells, settings.views, samplers_for(settings.device))
    floors = settings.size == "0.9B" and settings.device == "cpu"
    return {
        "cells": rows,
        "ratios": ratios(pairs, rows, floors=floors, clock="wall_s" if settings.device == "cuda" else "cpu_s"),
        "order": list(rows),
        "chunk_difference": chunk_difference(found, settings.views[0]),
    }


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    from importlib.metadata import version

    model = ""
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "peft")},
    }


def _peak(settings: Settings, result: Mapping[str, Any]) -> float | None:
    """Declared peak of the GPU that the cell ran on, in TFLOP/s."""
    if settings.peak_tflops is not None or "gpu" not in result:
        return settings.peak_tflops
    return next((peak for name, peak in PEAKS.items() if name in result["gpu"]), None)


def _names(cell: Cell) -> set[str]:
    return {cell.key, cell.kind, str(cell.options.get("sampler", cell.kind))}


def require_groups(groups: tuple[str, ...]) -> tuple[str, ...]:
    """`all`, or some groups, in the order in which they run."""
    return GROUPS if "all" in groups or not groups else tuple(group for group in GROUPS if group in groups)
