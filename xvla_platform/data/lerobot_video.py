"""One H.264 file that grows frame by frame."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class VideoSettings:
    """H.264 settings. A small ``gop`` (frames between key frames) keeps random access cheap."""

    gop: int = 8
    crf: int = 23
    preset: str = "medium"


class VideoFile:
    """Encoder of one camera stream; frames are uint8 RGB."""

    def __init__(
        self,
        path: Path,
        fps: int,
        height: int,
        width: int,
        settings: VideoSettings,
        position: tuple[int, int],
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.position = position
        self.frames = 0
        self._container: Any = av.open(str(path), "w")
        stream: Any = self._container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        # The muxer changes the stream's own time base once the header is written.
        self._tick = Fraction(1, fps)
        stream.codec_context.time_base = self._tick
        stream.codec_context.gop_size = settings.gop
        # Without B-frames, presentation order is decoding order and frame i sits exactly at i / fps.
        stream.codec_context.max_b_frames = 0
        stream.options = {"crf": str(settings.crf), "preset": settings.preset, "threads": "1"}
        self._stream = stream

    def write(self, images: NDArray[np.uint8]) -> None:
        """Append frames (N, H, W, 3)."""
        for image in images:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = self.frames
            frame.time_base = self._tick
            self._container.mux(self._stream.encode(frame))
            self.frames += 1

    def bytes_written(self) -> int:
        """Bytes on disk so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self) -> None:
        """Flush the encoder and finish the file; safe to call twice."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            container.mux(self._stream.encode(None))
        finally:
            container.close()

    def abandon(self) -> None:
        """Release the encoder without finishing the file, which is about to be deleted."""
        if self._container is None:
            return
        container, self._container = self._container, None
        with contextlib.suppress(OSError, ValueError, av.FFmpegError):
            container.close()
