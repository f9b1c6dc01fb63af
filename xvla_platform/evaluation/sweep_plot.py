"""The picture of a sweep: validation and test error of every cell, the best on top."""

from collections.abc import Sequence
from pathlib import Path

VALIDATION, TEST = "#30638e", "#d1495b"


def plot_sweep(
    path: Path, labels: Sequence[str], validation: Sequence[float], test: Sequence[float], *, title: str
) -> None:
    """One line a cell, in the order given; errors are relative to always predicting the mean action."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    places = list(range(len(labels), 0, -1))
    figure, axis = plt.subplots(figsize=(8, 1.4 + 0.32 * len(labels)))
    axis.hlines(places, validation, test, color="#9aa5b1", linewidth=1)
    axis.plot(validation, places, "o", color=VALIDATION, label="validation (chooses)")
    axis.plot(test, places, "s", color=TEST, markersize=4, label="test")
    axis.set_yticks(places, labels, fontsize=8)
    axis.set_ylim(0.4, len(labels) + 0.6)
    axis.set_xlabel("error (1 = always the mean action)")
    axis.set_title(title, loc="left", fontsize=11)
    axis.grid(axis="x", alpha=0.3)
    axis.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.75, 1.0), ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
