"""`xvla bench`: every cell really runs, in a process of its own, and its operations are those of the arithmetic."""

import json
import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from conftest import one_line_error
from torch.utils.flop_counter import FlopCounterMode

from xvla_platform.bench.arithmetic import PEER_CHUNK, count
from xvla_platform.bench.cells import STEP_KINDS, cells_of, comparisons_of
from xvla_platform.bench.clock import Meter, measure
from xvla_platform.bench.report import figures, operations, ratios
from xvla_platform.bench.sizes import configuration, size_of, tokens_of_view
from xvla_platform.modelling import florence
from xvla_platform.modelling.checkpoint import random_model
from xvla_platform.modelling.config import XVLAConfig

Run = Callable[..., CompletedProcess[str]]
TINY = replace(XVLAConfig.from_dict(configuration("tiny")), num_views=2)
SIZE = (112, 112)


@pytest.fixture(scope="module")
def tiny() -> dict[str, int]:
    return count(TINY, SIZE, ["prompt", "full", "public", "encode", "inference.exact", PEER_CHUNK])


def test_freezing_saves_what_the_arithmetic_says(tiny: dict[str, int]) -> None:
    """With E the encoder's and P the policy's forward pass: 3 (E + P) publicly, 2 P from the cache."""
    forward, encoder = tiny["public"] / 3, tiny["encode"]
    policy = forward - encoder
    assert tiny["full"] < tiny["public"] < 1.1 * tiny["full"]  # its last block computes tokens that nobody reads
    assert 1.5 * policy < tiny["prompt"] < 2.3 * policy  # both operands of attention are differentiated
    assert tiny[PEER_CHUNK] == pytest.approx(encoder + 10 * policy, rel=0.03)  # public: no gradient of pixels
    assert encoder < tiny["inference.exact"] < tiny[PEER_CHUNK]


@pytest.mark.slow
def test_every_step_costs_more_than_what_it_contains() -> None:
    found = count(TINY, SIZE, [*dict.fromkeys(kind for _, kind, _ in STEP_KINDS), "encode"])
    assert found["prompt_uncached"] == found["prompt"] + found["encode"]
    assert found["prompt"] < found["lora"] < 1.3 * found["prompt"]
    assert 1.25 * found["full"] < found["full_checkpointed"] < found["full"] * 4 / 3
    assert found["full_frugal"] == found["full_checkpointed"]
    assert found["full_compiled"] == found["full"]
    assert found["lora_everywhere"] < found["public_lora"] < found["public"]


def test_the_count_is_that_of_torch_on_real_numbers(tiny: dict[str, int]) -> None:
    """The meta device takes the same path as numbers do, window attention and depthwise convolutions included."""
    model = random_model(TINY, 0).eval()
    images, words = torch.randn(2, 3, *SIZE), torch.zeros(1, TINY.language_max_length, dtype=torch.long)
    # Fused attention of the CPU is not among what torch counts.
    unfused = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), unfused, FlopCounterMode(display=False) as counter:
        vlm, aux = florence.encode(
            model.vlm,  # type: ignore[arg-type]
            input_ids=words,
            pixel_values=images[None],
            image_mask=torch.ones(1, 2, dtype=torch.bool),
        )
    assert counter.get_total_flops() == tiny["encode"]
    assert vlm.shape[1] + aux.shape[1] == 2 * tokens_of_view(TINY.florence, SIZE) + TINY.language_max_length


@pytest.mark.slow
def test_the_released_size_has_the_published_arithmetic() -> None:
    """1464.4 GFLOP a sample for the public stage 1, 5.44 times a cached step (which now skips what is not read)."""
    config = replace(XVLAConfig.from_dict(configuration("0.9B")), num_views=2)
    found = count(config, (224, 224), ["public", "prompt"])
    assert found["public"] / 1e9 == pytest.approx(1464.4, rel=1e-3)
    assert 5.44 < found["public"] / found["prompt"] < 5.7


def test_a_meter_keeps_every_round_but_the_first() -> None:
    done: list[int] = []
    found = measure(done.append, Meter(rounds=4, warmup=2, limit_s=100, device="cpu"))
    assert done == [0, 1, 2, 3, 4, 5]
    assert len(found["cpu_s"]) == len(found["wall_s"]) == 4
    assert 0 < found["peak_bytes"] <= found["process_peak_bytes"]
    late = measure(lambda i: None, Meter(rounds=100, warmup=0, limit_s=0, device="cpu"))
    assert len(late["cpu_s"]) == 3


def test_whole_runs_are_extrapolated_and_say_so() -> None:
    cells = {c.key: c for c in cells_of(["end-to-end"], size_of("mid"), (2,), peer=False, samplers=[])}
    flops = {"2": {"encode": 3, "prompt": 2, "public": 9}}
    ours = {"cpu_s": [1.0, 3.0], "encode_cpu_s": 4.0, "frames": 32, "process_peak_bytes": 1}
    row = figures(cells["ours.end_to_end.2"], ours, flops, None)
    assert row["cpu_s"]["median"] == 1000 * 2.0 + 1000 / 32 * 4.0
    assert row["extrapolated"]
    assert row["steps_taken"] == 2
    assert row["flops"] == 1000 * 3 + 16_000 * 2
    assert operations(cells["public.end_to_end.2"], flops) == 16_000 * 9
    public = figures(cells["public.end_to_end.2"], {"cpu_s": [9.0] * 1000, "process_peak_bytes": 1}, flops, None)
    assert not public["extrapolated"]
    pairs = comparisons_of(list(cells.values()), (2,), [])
    (ratio,) = ratios(pairs, {"ours.end_to_end.2": row, "public.end_to_end.2": public}, floors=True, clock="cpu_s")
    assert ratio["extrapolated"]
    assert ratio["holds"] is (9000 / 2125 >= 4.5)


def test_steps_run_in_processes_and_are_kept(here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells and their ratio; the same command again measures nothing that is there."""
    words = ("bench", "steps", "--rounds", "2", "--only", "prompt", "--only", "public", "--out", "bench.json", "--json")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    first = here(*words, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    found = json.loads(first.stdout)
    cells = found["cells"]
    assert cells.keys() == {"ours.prompt.2", "public.public.2"}
    for cell in cells.values():
        numbers = [*cell["cpu_s"].values(), *cell["wall_s"].values(), cell["memory_bytes"], cell["flops"]]
        assert all(math.isfinite(number) and number > 0 for number in numbers)
        assert cell["rounds"] == 2
    assert cells["ours.prompt.2"]["trained"] == TINY.slot_numbers
    time, memory = found["ratios"]
    assert time["flop_ratio"] == cells["public.public.2"]["flops"] / cells["ours.prompt.2"]["flops"]
    assert time["ratio"] > 1 < memory["ratio"]
    again = json.loads(here(*words, cwd=tmp_path).stdout)
    assert again["cells"] == cells
    assert again["ratios"] == found["ratios"]
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    # Ratios are of one machine: what another one measured is refused, and stays.
    elsewhere = json.loads((tmp_path / "bench.json").read_text())
    elsewhere["machine"]["processor"] = "another"
    (tmp_path / "bench.json").write_text(text := json.dumps(elsewhere))
    assert "found processor another" in one_line_error(here(*words[:-1], cwd=tmp_path))
    assert (tmp_path / "bench.json").read_text() == text


def test_misuse_is_one_line(here: Run, tmp_path: Path) -> None:
    assert "no such cell" in one_line_error(here("bench", "steps", "--only", "promt", cwd=tmp_path))
    assert "tiny" in one_line_error(here("bench", "steps", "--size", "huge", cwd=tmp_path))
    line = one_line_error(here("bench", "steps", "--peer-python", sys.executable, cwd=tmp_path))
    assert "lerobot" in line
    assert "--peer-python" in line
    assert "peer" in one_line_error(here("bench", "pipeline", cwd=tmp_path))
    assert "--peer-python" in one_line_error(here("bench", "steps", "--peer-python", "/no/python", cwd=tmp_path))
    if not torch.cuda.is_available():
        assert "CUDA" in one_line_error(here("bench", "steps", "--device", "cuda", cwd=tmp_path))
    (tmp_path / "other.json").write_text(json.dumps({"schema_version": 1, "size": "mid", "cells": {}}))
    assert "other settings" in one_line_error(here("bench", "steps", "--out", "other.json", cwd=tmp_path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_memory_and_wall_clock_are_the_gpus(xvla: Run) -> None:
    words = ("bench", "steps", "--device", "cuda", "--only", "prompt", "--only", "full", "--peak", "100", "--json")
    found = json.loads(xvla(*words).stdout)
    for cell in found["cells"].values():
        assert 0 < cell["mfu"] < 1
        assert cell["gpu"] == torch.cuda.get_device_name()


@pytest.mark.slow
def test_every_cell_runs(here: Run, tmp_path: Path) -> None:
    """All groups of the smallest size, without a peer."""
    done = here("bench", "--rounds", "1", "--out", "all.json", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)["cells"]
    assert {cell["side"] for cell in cells.values()} == {"ours", "public"}
    assert {cell["group"] for cell in cells.values()} == {"steps", "inference", "end-to-end"}
