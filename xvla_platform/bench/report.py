"""From what the cells spent to ratios: time beside arithmetic, memory beside memory, and what was extrapolated."""

from collections.abc import Iterable, Mapping
from typing import Any

from xvla_platform.bench.cells import FRAMES, SAMPLES, STEPS, Cell, Comparison
from xvla_platform.bench.clock import summary

Result = Mapping[str, Any]


def figures(
    cell: Cell, result: Result, flops: Mapping[str, Mapping[str, int]], peak_tflops: float | None
) -> dict[str, Any]:
    """A cell's row: CPU and wall seconds of a round (median, least, most), memory, operations."""
    out: dict[str, Any] = {"about": cell.about, "side": cell.side, "group": cell.group}
    out |= {key: result[key] for key in ("trained", "frames", "gpu", "versions") if key in result}
    out["memory_bytes"] = result.get("cuda_peak_bytes", result["process_peak_bytes"])
    out["rounds"] = len(result["cpu_s"])
    out["flops"] = operations(cell, flops)
    if cell.group == "end-to-end":
        out |= _whole_run(cell, result)
    else:
        out |= {"cpu_s": summary(result["cpu_s"]), "wall_s": summary(result["wall_s"])}
    if out["flops"]:
        clock = out["wall_s"] if "cuda_peak_bytes" in result and "wall_s" in out else out["cpu_s"]
        out["gflops_per_s"] = out["flops"] / clock["median"] / 1e9
        if peak_tflops is not None and "cuda_peak_bytes" in result:
            out["mfu"] = out["gflops_per_s"] / (peak_tflops * 1e3)
    return out


def _whole_run(cell: Cell, result: Result) -> dict[str, Any]:
    """CPU seconds of all thousand steps, and of encoding the thousand frames, from those that were taken."""
    steps, taken = sum(result["cpu_s"]), len(result["cpu_s"])
    total = steps * STEPS / taken
    out = {"steps_taken": taken, "steps_cpu_s": steps, "extrapolated": taken < STEPS}
    if "encode_cpu_s" in result:
        total += result["encode_cpu_s"] * FRAMES / result["frames"]
        out |= {"encode_cpu_s": result["encode_cpu_s"], "extrapolated": taken < STEPS or result["frames"] < FRAMES}
    return {**out, "cpu_s": summary([total])}


def needed(cells: Iterable[Cell]) -> dict[str, list[str]]:
    """What has to be counted for these cells, by number of views."""
    out: dict[str, set[str]] = {}
    for cell in cells:
        if cell.flops is not None:
            views, _, kind = cell.flops.partition(".")
            out.setdefault(views, set()).update(share for share, _ in _shares(cell, kind))
    return {views: sorted(kinds) for views, kinds in out.items()}


def operations(cell: Cell, flops: Mapping[str, Mapping[str, int]]) -> int | None:
    """Floating-point operations of a round of the cell."""
    if cell.flops is None:
        return None
    views, _, kind = cell.flops.partition(".")
    return sum(times * flops[views][share] for share, times in _shares(cell, kind))


def _shares(cell: Cell, kind: str) -> list[tuple[str, int]]:
    """What a round of the cell consists of: what is counted, and how often it happens."""
    if kind == "end_to_end":
        return [("encode", FRAMES), ("prompt", STEPS * SAMPLES)]
    if kind == "end_to_end_public":
        return [("public", STEPS * SAMPLES)]
    return [(kind, cell.samples)]


def ratios(
    pairs: list[Comparison], cells: Mapping[str, Mapping[str, Any]], *, floors: bool, clock: str
) -> list[dict[str, Any]]:
    """One row a comparison whose cells were measured.

    Args:
        floors: Whether the floors hold for what was measured (the released size, on a CPU).
        clock: `cpu_s` or `wall_s`.
    """
    rows = []
    for pair in pairs:
        if pair.ours not in cells or pair.reference not in cells:
            continue
        ours, reference = cells[pair.ours], cells[pair.reference]
        row: dict[str, Any] = {"name": pair.name, "what": pair.what, "floor": pair.floor if floors else None}
        if pair.what == "memory":
            row |= {"ours": ours["memory_bytes"], "reference": reference["memory_bytes"]}
            row["ratio"] = row["reference"] / row["ours"]
        else:
            mine, theirs = (cell.get(clock, cell["cpu_s"]) for cell in (ours, reference))
            row |= {"ours": mine["median"], "reference": theirs["median"], "ratio": theirs["median"] / mine["median"]}
            row["range"] = [theirs["min"] / mine["max"], theirs["max"] / mine["min"]]
            if ours["flops"] and reference["flops"]:
                row["flop_ratio"] = reference["flops"] / ours["flops"]
                row["of_limit"] = row["ratio"] / row["flop_ratio"]
            row["extrapolated"] = bool(ours.get("extrapolated") or reference.get("extrapolated"))
        row["holds"] = None if row["floor"] is None else row["ratio"] >= row["floor"]
        rows.append(row)
    return rows


def chunk_difference(results: Mapping[str, Result], views: int) -> float | None:
    """Largest difference of our exact chunk to LeRobot's for the same weights, observation and noise."""
    keys = f"ours.inference.exact.{views}", f"lerobot.inference.exact.{views}"
    if not all(key in results for key in keys):
        return None
    mine, theirs = (_flat(results[key]["chunk"]) for key in keys)
    return max(abs(a - b) for a, b in zip(mine, theirs, strict=True))


def _flat(value: Any) -> list[float]:
    return [number for part in value for number in _flat(part)] if isinstance(value, list) else [value]
