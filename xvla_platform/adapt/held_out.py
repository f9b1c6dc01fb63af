"""What a base being pretrained does on scenes it never saw: does it find what is named, head for it, and move right?

In: the model and the held-out rows of every robot. Out: numbers by name, for `metrics.jsonl` and the picture. The loss
shows none of this: a model that goes to any object has a low one.

`near`       still scenes: share of answers that lie nearest to the named object (1 / objects is chance)
`seen`       the same for the grounding head that reads the words, by places in the image
`seen_second`  the same for what is named second, over scenes whose instructions differ in it
`heading`    demonstrations: share of first chunks that point at the own scene's named object rather than another's
`error`      mean distance of the chunk's positions to the recorded ones, in model units (m)
`still`      the same for a robot that does not move
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from xvla_platform.adapt.grounding import HEADS, encode_pictures, locate, read
from xvla_platform.adapt.mixture import Stock, marks
from xvla_platform.adapt.sources import Draw, assemble
from xvla_platform.evaluation.open_loop import predict_chunks
from xvla_platform.modelling.precision import has_bf16
from xvla_platform.modelling.processor import Processor
from xvla_platform.modelling.xvla import XVLA

MOST_ROWS = 120  # of each robot and measure
BATCH = 60
TIMES = (1.0, 0.2)  # of the sampler: enough to see where it goes
SEED = 0


@torch.no_grad()
def measure(model: XVLA, stocks: Sequence[Stock], processor: Processor, *, acts: bool = True) -> dict[str, float]:
    """Every measure by `held_out/<robot>/<measure>`, without `acts` only what is seen; leaves evaluation mode on."""
    model.eval()
    out: dict[str, float] = {}
    for stock in stocks:
        if not len(stock.held) or not (acts or stock.still):
            continue
        found = _still(model, stock, processor, acts) if stock.still else _moving(model, stock, processor)
        out |= {f"held_out/{stock.source.name}/{name}": value for name, value in found.items()}
    return out


def _still(model: XVLA, stock: Stock, processor: Processor, acts: bool) -> dict[str, float]:
    scenes = _scenes(stock, stock.held)
    if scenes is None:
        return {}
    rows = scenes.reshape(-1)
    chunks, seen = _answers(model, stock, rows, processor, acts)
    found = {}
    if chunks is not None:
        dims = _positions(model)
        answer, wanted = (x[:, 0, dims].unflatten(0, scenes.shape) for x in (chunks, stock.source.action[rows]))
        found = {"near": _nearest(answer, wanted), "error": float((answer - wanted).norm(dim=-1).mean())}
    if stock.uv is not None and seen is not None:
        for role, name in enumerate(("seen", "seen_second")):
            places = stock.uv[rows, role].unflatten(0, scenes.shape)
            asks = places.isfinite().all(-1).all(-1) & (places != places[:, :1]).any(-1).any(-1)
            if asks.any():
                found[name] = _nearest(seen[:, role].unflatten(0, scenes.shape)[asks], places[asks])
    return found


def _moving(model: XVLA, stock: Stock, processor: Processor) -> dict[str, float]:
    rows = stock.held[:: -(-len(stock.held) // MOST_ROWS)]
    dims = _positions(model)
    chunks = _chunks(model, stock, rows, processor)
    here, target = stock.source.proprio[rows][:, None, dims], stock.source.action[rows][..., dims]
    found = {
        "error": float((chunks[..., dims] - target).norm(dim=-1).mean()),
        "still": float((here - target).norm(dim=-1).mean()),
    }
    scenes = _scenes(stock, np.intersect1d(stock.first, stock.held))
    if scenes is not None:
        rows = scenes.reshape(-1)
        chunks = _chunks(model, stock, rows, processor)
        here = stock.source.proprio[rows][:, dims]
        ahead = (chunks[:, -1, dims] - here).unflatten(0, scenes.shape)
        wanted = (stock.source.action[rows][:, -1, dims] - here).unflatten(0, scenes.shape)
        likeness = F.cosine_similarity(ahead[:, :, None], wanted[:, None], dim=-1)
        found["heading"] = float((likeness.argmax(-1) == torch.arange(scenes.shape[1])).float().mean())
    return found


def _scenes(stock: Stock, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Rows [scenes, k] of whole scenes that name k different things; None where no scene has two."""
    numbers, counts = np.unique(stock.scene_of[rows], return_counts=True)
    size = int(counts.max(initial=0))
    if size < 2:
        return None
    whole = rows[np.isin(stock.scene_of[rows], numbers[counts == size])].reshape(-1, size)
    return whole[:: -(-len(whole) * size // MOST_ROWS)]


def _nearest(answer: Tensor, wanted: Tensor) -> float:
    """Share of answers [S, k, D] that are nearest to their own of the scene's targets [S, k, D], which may coincide."""
    distance = (answer[:, :, None] - wanted[:, None]).norm(dim=-1)
    return float((distance.diagonal(dim1=-2, dim2=-1) <= distance.amin(-1)).float().mean())


def _positions(model: XVLA) -> list[int]:
    """The dims that are positions; in a space without any, all that carry meaning."""
    fields = [field for field in model.space.fields if field.kind == "position"] or model.space.fields
    return [i for field in fields for i in range(field.start, field.stop)]


def _chunks(model: XVLA, stock: Stock, rows: NDArray[np.int64], processor: Processor) -> Tensor:
    """Chunks [n, T, dim] for some rows."""
    chunks, _ = _answers(model, stock, rows, processor, acts=True)
    assert chunks is not None
    return chunks


def _answers(
    model: XVLA, stock: Stock, rows: NDArray[np.int64], processor: Processor, acts: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Chunks [n, T, dim] for some rows, if it acts, and where the head that reads the words sees what is named.

    That is [n, 2, 2]: what is named first and second, by place in the main view.
    """
    assert model.vlm is not None
    device = next(model.parameters()).device
    chunks: list[Tensor] = []
    seen: list[Tensor] = []
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        drawn = Draw(source=np.zeros(len(part), dtype=np.int64), row=part)
        batch = assemble([stock.source], drawn, processor)
        known = {name: value.to(device) for name, value in marks([stock], drawn).items()}
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bf16(device)):
            tokens, pixels, mask = (batch[name].to(device) for name in ("input_ids", "pixel_values", "image_mask"))
            views, (vlm, aux) = encode_pictures(model, tokens, pixels, mask, known["picture"])
            if hasattr(model.vlm, HEADS):
                seen.append(locate(read(model, views, vlm, known["classes"])[1]).float().cpu())
        if not acts:
            continue
        found = predict_chunks(
            model,
            features=(vlm.float(), aux.float()),
            proprio=batch["proprio"],
            domain_id=stock.source.domain_id,
            seed=SEED,
            times=TIMES,
        )
        chunks.append(torch.from_numpy(found))
    return torch.cat(chunks) if chunks else None, torch.cat(seen) if seen else None


def plot_pretraining(path: Path, lines: Sequence[dict[str, Any]], title: str) -> None:
    """Losses over all phases, and the held-out measures: what is found, and how far the chunks are off."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (losses, found, distance) = plt.subplots(1, 3, figsize=(15, 3.8))
    offsets: dict[str, int] = {}
    end = 0
    for stage in dict.fromkeys(str(line["stage"]) for line in lines):
        offsets[stage] = end
        end += max(int(line["step"]) for line in lines if line["stage"] == stage)
        losses.axvline(end, color="#9aa5b1", linewidth=0.6)
    terms = sorted({name for line in lines for name in line if name == "loss" or name.startswith("grounding")})
    measures = sorted({name for line in lines for name in line if name.startswith("held_out/")})
    for names, kinds, axis in (
        (terms, None, losses),
        (measures, ("near", "seen", "seen_second", "heading"), found),
        (measures, ("error",), distance),
    ):
        for name in names:
            if kinds is not None and name.rsplit("/", 1)[-1] not in kinds:
                continue
            points = [(offsets[str(line["stage"])] + int(line["step"]), line[name]) for line in lines if name in line]
            steps, values = np.array(points, dtype=np.float64).T
            if kinds is None:
                width = max(1, len(values) // 40)
                steps, values = steps[width - 1 :], np.convolve(values, np.ones(width) / width, mode="valid")
            axis.plot(steps, values, marker=None if kinds is None else "o", label=name.removeprefix("held_out/"))
    losses.set(title="training loss", yscale="log")
    found.set(title="found, on held-out scenes", ylim=(0, 1.02))
    distance.set(title="position error of held-out chunks (m)")
    for axis in (losses, found, distance):
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.lines and axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=6, frameon=False, ncols=2)
    figure.suptitle(title, x=0.02, ha="left", fontsize=12)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
