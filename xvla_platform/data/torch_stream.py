"""A `SampleStream` behind torch's `DataLoader`: worker processes decode ahead, in the stream's own order.

The one module of the data layer that needs torch; nothing else here imports it.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from xvla_platform.data.stream import Batch, SampleStream


class TorchStream(IterableDataset[Batch]):
    """The stream as torch sees it: each worker reads its share."""

    def __init__(self, stream: SampleStream) -> None:
        super().__init__()
        self.stream = stream

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        return self.stream.read() if info is None else self.stream.read(info.id, info.num_workers)


def stream_loader(stream: SampleStream, *, workers: int = 0, **options: Any) -> DataLoader[Batch]:
    """A loader that gives the stream's batches (numpy inside) in the stream's order, whatever `workers` is.

    `options` go to `DataLoader` (`prefetch_factor`, `persistent_workers`, `multiprocessing_context` ...).
    """
    return DataLoader(TorchStream(stream), batch_size=None, num_workers=workers, collate_fn=_as_is, **options)


def _as_is(batch: Any) -> Any:
    return batch
