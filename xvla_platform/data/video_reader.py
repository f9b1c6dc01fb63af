"""Frame-accurate reading of video files: times in seconds in, RGB frames out, decoding no more than needed.

A file's packets are indexed once without decoding. A request seeks to the keyframe before its frame only
where that saves work; ascending requests decode straight on.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from xvla_platform.data.reader import FloatArray, Images
from xvla_platform.data.recent import Recent
from xvla_platform.errors import XvlaError

OPEN_FILES = 8


class VideoReader:
    """One open video. Not thread-safe; `VideoCache` guards it."""

    def __init__(self, path: Path) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self.path = path
        self._converter = VideoReformatter()
        if not path.is_file():
            raise XvlaError("video file is missing", file=path)
        try:
            self._container: Any = av.open(str(path))
            if not self._container.streams.video:
                raise XvlaError("holds no video stream", file=path)
            self._stream = self._container.streams.video[0]
            if self._stream.codec_context is None:
                raise ValueError("its header is cut off")
            self._stream.codec_context.options = {"err_detect": "explode"}  # damage is refused, not concealed
            self._stream.codec_context.thread_count = 1  # decoder threads hold frames back, which seeking pays for
            packets = [
                (packet.pts, packet.is_keyframe)
                for packet in self._container.demux(self._stream)
                if packet.pts is not None and packet.size and not packet.is_discard
            ]
        except (av.FFmpegError, OSError, ValueError) as error:
            raise XvlaError(
                f"video cannot be opened: {_reason(error)}",
                file=path,
                hint="it is probably truncated; record or download it again",
            ) from None
        if not packets:
            raise XvlaError("video holds no frame", file=path)
        packets.sort()
        self._pts = np.array([pts for pts, _ in packets], dtype=np.int64)
        self._seconds = self._pts * float(self._stream.time_base or 0)
        self._keyframes = np.flatnonzero([key for _, key in packets])
        self._frames: Iterator[Any] = iter(())
        self._position = -2  # index of the newest decoded frame; -2: nothing is decoding

    @property
    def end_s(self) -> float:
        """Time of the last frame in seconds."""
        return float(self._seconds[-1])

    def read(self, times: FloatArray, tolerance_s: float, *, what: str) -> Images:
        """The frames nearest to `times` [N] seconds, RGB uint8 [N, H, W, 3], each within `tolerance_s`.

        `what` names the request in errors ("episode 7").
        """
        wanted = np.clip(np.searchsorted(self._seconds, times), 1, max(len(self._seconds) - 1, 1))
        wanted = np.minimum(wanted, len(self._seconds) - 1)
        before = np.maximum(wanted - 1, 0)
        nearer = np.abs(self._seconds[before] - times) <= np.abs(self._seconds[wanted] - times)
        wanted = np.where(nearer, before, wanted)
        gaps = np.abs(self._seconds[wanted] - times)
        if (gaps > tolerance_s).any():
            worst = float(times[int(gaps.argmax())])
            if worst > self.end_s:
                message = f"video ends at {self.end_s:.3f} s, {what} needs {worst:.3f} s"
            else:
                message = f"video has no frame within {tolerance_s:.3f} s of {worst:.3f} s, which {what} needs"
            raise XvlaError(message, file=self.path)
        if len(wanted) == 1:
            return self._decode(int(wanted[0]), what)[None]
        images: Images | None = None
        for target in np.unique(wanted):
            image = self._decode(int(target), what)
            if images is None:
                images = np.empty((len(times), *image.shape), dtype=np.uint8)
            images[wanted == target] = image
        assert images is not None
        return images

    def close(self) -> None:
        self._container.close()

    def _decode(self, target: int, what: str) -> Images:
        import av

        keyframe = self._keyframes[self._keyframes <= target]
        start = int(keyframe[-1]) if len(keyframe) else 0
        try:
            if not (self._position < target and start <= self._position + 1):
                self._container.seek(int(self._pts[start]), stream=self._stream, backward=True)
                self._frames = self._container.decode(self._stream)
            self._position = -2
            for frame in self._frames:
                if frame.pts is None or frame.pts < self._pts[target]:
                    continue
                if frame.pts > self._pts[target] or frame.is_corrupt:
                    break
                self._position = target
                # One converter for all frames: making one costs more than decoding a small frame.
                return np.asarray(self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray(), np.uint8)
        except (av.FFmpegError, OSError, ValueError) as error:
            self._position = -2
            raise XvlaError(
                f"video is damaged at {self._seconds[target]:.3f} s, which {what} needs: {_reason(error)}",
                file=self.path,
            ) from None
        raise XvlaError(
            f"video is damaged: no intact frame at {self._seconds[target]:.3f} s, which {what} needs",
            file=self.path,
        )


def _reason(error: Exception) -> str:
    """FFmpeg's own words, without its error number and the file name."""
    return str(getattr(error, "strerror", None) or error)


class VideoCache:
    """The few most recently used videos, kept open; safe across threads, forks and pickling."""

    def __init__(self, capacity: int = OPEN_FILES) -> None:
        self._files: Recent[Path, VideoReader] = Recent(capacity, VideoReader, VideoReader.close)

    def read(self, path: Path, times: FloatArray, tolerance_s: float, *, what: str) -> Images:
        """`VideoReader.read` of the file at `path`."""
        with self._files.use(path) as video:
            return video.read(times, tolerance_s, what=what)
