"""What a study found: one row an outcome, from the answers of its finished steps; tables and a plot.

A row without an answer is left out, so that a study can be looked at while it runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xvla_platform.closed_loop.results import OVERALL
from xvla_platform.study.run import answer_of
from xvla_platform.study.spec import StudySpec
from xvla_platform.study.steps import Step

OWN = "own"
MARKERS = "osD^"  # the next one when the colours begin again


def collect(steps: Sequence[Step], folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of `experts`, `success`, `open_loop`, `forgetting`, `ablation`, each with what the step is about."""
    kinds = ("experts", "success", "open_loop", "forgetting", "ablation")
    out: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for step in steps:
        answer = answer_of(folder, step)
        kind = step.id.partition(".")[0]
        if answer is None:
            continue
        if kind == "record" and answer["success_rate"]:
            names = ("episodes", "success_rate", "seconds")
            out["experts"].append({**step.about, **{name: answer[name] for name in names}})
        elif kind == "adapt":
            found = answer["results"]
            row = {"table": found["table"][-1]["errors"], "units": found["units"], "frames": found["test_frames"]}
            out["open_loop"].append({**step.about, **row})
        elif kind == "eval":
            out["success"].append({**step.about, "tasks": answer["results"][OWN]})
        elif kind == "forget":
            out["forgetting"].append({**step.about, "tasks": answer["results"][OWN]})
        elif kind == "ablate":
            out["ablation"].append({**step.about, "conditions": answer["results"]})
    return out


def tables(study: StudySpec, rows: Mapping[str, list[dict[str, Any]]]) -> str:
    """The study's results as Markdown."""
    parts = []
    if rows["experts"]:
        parts.append("### The scripted experts\n\n" + _experts(rows["experts"]))
    for robot in study.held_out:
        own = [row for row in rows["success"] if row["robot"] == robot]
        if own:
            keys = ("base", "rung", "demonstrations", "init", *_seed(own))
            parts.append(f"### {robot}: success\n\n" + _success(study, own, keys))
    errors = rows["open_loop"]
    if errors:
        parts.append("### Errors on held-out episodes\n\n" + _errors(errors))
    if rows["forgetting"]:
        keys = ("base", "rung", "robot", "driven")
        parts.append("### What the pretraining robots keep\n\n" + _success(study, rows["forgetting"], keys))
    if rows["ablation"]:
        flat = [
            {**row, "input": condition, "tasks": tasks}
            for row in rows["ablation"]
            for condition, tasks in row["conditions"].items()
        ]
        parts.append("### Without one of the inputs\n\n" + _success(study, flat, ("base", "robot", "rung", "input")))
    return "\n\n".join(parts) + "\n"


def _success(study: StudySpec, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> str:
    tasks = [*study.closed_loop.tasks, *([OVERALL] if len(study.closed_loop.tasks) > 1 else [])]
    headers = [*keys, *tasks, f"approached the named object ({tasks[-1]})"]
    body = []
    for row in rows:
        found = row["tasks"]
        cells = [_share(found[task]["success"]) for task in tasks]
        body.append([*(str(row[key]) for key in keys), *cells, _share(found[tasks[-1]]["approached"])])
    return markdown(headers, body)


def _experts(rows: Sequence[Mapping[str, Any]]) -> str:
    tasks = list(dict.fromkeys(task for row in rows for task in row["success_rate"]))
    body = []
    for row in rows:
        rates = [f"{100 * row['success_rate'][task]:.0f} %" if task in row["success_rate"] else "" for task in tasks]
        cameras = f"rig {row['rig']}" if row["rig"] else "its own"
        body.append([row["robot"], cameras, str(row["episodes"]), *rates])
    return markdown(["robot", "cameras", "episodes", *tasks], body)


def _errors(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = ("base", "robot", "rung", "demonstrations", "init", *_seed(rows))
    fields = list(dict.fromkeys(field for row in rows for field in row["table"]))
    body = []
    for row in rows:
        # Every robot is measured in its own units.
        cells = [
            f"{row['table'][field]:.3g} {row['units'][field]}" if field in row["table"] else "" for field in fields
        ]
        body.append([*(str(row[key]) for key in keys), *cells])
    return markdown([*keys, *fields], body)


def _seed(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The column that tells rows apart which differ in the seed alone."""
    return ("seed",) if len({row["seed"] for row in rows}) > 1 else ()


def _share(share: Mapping[str, Any]) -> str:
    if share["rate"] is None:
        return "not known"
    low, high = share["interval_95"]
    return f"{100 * share['rate']:.0f} % ({100 * low:.0f}-{100 * high:.0f})"


def markdown(headers: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headers, ["---"] * len(headers), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plot_success(study: StudySpec, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Success over the number of demonstrations, one panel a held-out robot, one line a way to adapt."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    task = OVERALL if len(study.closed_loop.tasks) > 1 else study.closed_loop.tasks[0]
    differing = [name for name in ("base", "rung", "init", "seed") if len({row[name] for row in rows}) > 1] or ["rung"]
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(", ".join(str(row[name]) for name in differing), []).append(row)
    width = 4.6 * len(study.held_out) + 2.4
    figure, axes = plt.subplots(1, len(study.held_out), figsize=(width, 4), squeeze=False, layout="constrained")
    most = max((row["demonstrations"] for row in rows), default=1)
    for axis, robot in zip(axes[0], study.held_out, strict=True):
        for i, (label, own) in enumerate(lines.items()):
            found = sorted((row for row in own if row["robot"] == robot), key=lambda row: row["demonstrations"])
            shares = [row["tasks"][task]["success"] for row in found]
            x = [row["demonstrations"] + 0.012 * most * _aside(label, row["demonstrations"], lines) for row in found]
            y = [100 * share["rate"] for share in shares]
            spread = [
                [100 * (share["rate"] - share["interval_95"][0]) for share in shares],
                [100 * (share["interval_95"][1] - share["rate"]) for share in shares],
            ]
            colour, marker = f"C{i % 10}", MARKERS[i // 10 % len(MARKERS)]
            axis.errorbar(x, y, yerr=spread, marker=marker, color=colour, capsize=2, linewidth=1.4, markersize=5)
        axis.set(title=robot, xlabel="demonstrations", ylabel=f"success, {task} [%]", ylim=(-3, 103))
        axis.grid(alpha=0.3)
    if lines:
        # One for all panels, beside them: a way to adapt has the same colour on every robot.
        figure.legend(axes[0][0].containers, list(lines), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _aside(label: str, count: int, lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
    """Places by which a point moves aside: intervals of one number of demonstrations would cover each other."""
    there = [name for name, rows in lines.items() if any(row["demonstrations"] == count for row in rows)]
    return there.index(label) - (len(there) - 1) / 2
