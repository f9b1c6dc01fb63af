"""The few most recently used files or tables, kept open: one cache for every reader.

Open files do not survive a fork or a pickle: a forked child would share its parent's file offsets, so in another
process, and in a pickled copy, the cache starts empty and opens its own. What the parent had open is left as it is,
never closed in the child: a video decoder would wait for threads that the child does not have.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """At most `capacity` values made by `make(key)`; `close(value)` is called when one is dropped."""

    def __init__(
        self, capacity: int, make: Callable[[Key], Value], close: Callable[[Value], None] | None = None
    ) -> None:
        self._capacity, self._make, self._close = capacity, make, close
        self._inherited: list[OrderedDict[Key, Value]] = []
        self._reset()

    @contextmanager
    def use(self, key: Key) -> Iterator[Value]:
        """The value, held by this thread alone until the block ends."""
        if self._process != os.getpid():
            self._inherited.append(self._values)
            self._reset()
        with self._lock:
            if key not in self._values:
                self._values[key] = self._make(key)
                if len(self._values) > self._capacity:
                    _, dropped = self._values.popitem(last=False)
                    if self._close is not None:
                        self._close(dropped)
            self._values.move_to_end(key)
            yield self._values[key]

    def values(self) -> list[Value]:
        """What is open now, the latest used last."""
        return list(self._values.values())

    def __getstate__(self) -> dict[str, Any]:
        return {"_capacity": self._capacity, "_make": self._make, "_close": self._close}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_capacity"], state["_make"], state["_close"])  # type: ignore[misc]

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._values: OrderedDict[Key, Value] = OrderedDict()
