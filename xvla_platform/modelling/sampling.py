"""How a chunk is computed: X-VLA's published sampler, and faster ways that differ from it by a stated amount.

A `Sampler` is a value; `SAMPLERS` names the ready ones. `exact` is the default and no other is ever chosen unasked.
How far each lies from the exact chunk on a given robot is measured by `xvla eval ADAPTATION --samplers`.

Why few steps suffice: the network predicts the clean chunk itself, and every step mixes the newest estimate with the
same noise, so an error of one step reaches the next one only through t. What matters is where the last step stands
(the published sampler ends at t = 0.1; evenly spaced steps of a smaller number end earlier) and that the step before it
is near.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.precision import computes_bf16
from xvla_platform.modelling.xvla import PUBLISHED_TIMES

Weights = Literal["trained", "merged", "bfloat16", "int8"]
THREE = (1.0, 0.2, 0.1)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """One way to compute a chunk.

    Attributes:
        name: What it is called in tables and options.
        about: One line for people.
        times: Flow times at which the network is asked, falling, the first being 1 (noise).
        weights: `trained`: as training left them, LoRA beside its layers. `merged`: LoRA added into them, and on a CPU
            the policy transformer's laid in the order in which they are multiplied. `bfloat16`: merged, the policy
            transformer's linear layers in that type. `int8`: merged, its MLPs and the encoder's linear layers in 8
            bits.
        reuse: Encode each view on its own and keep its features while its frame stays the same, bit for bit.
        aux_every: With `reuse`, auxiliary views are encoded on every so many-th call only, and kept in between.
        graph: Replay all steps as one CUDA graph.
    """

    name: str
    about: str = ""
    times: tuple[float, ...] = PUBLISHED_TIMES
    weights: Weights = "trained"
    reuse: bool = False
    aux_every: int = 1
    graph: bool = False

    def __post_init__(self) -> None:
        falling = all(a > b for a, b in zip(self.times, self.times[1:], strict=False))
        if not self.times or not falling or self.times[0] != 1.0 or self.times[-1] <= 0.0:
            raise XvlaError(
                "the flow times of a sampler begin at 1 and fall towards 0",
                field="sampler",
                found=", ".join(f"{time:g}" for time in self.times) or "none",
            )
        if self.aux_every < 1 or (self.aux_every > 1 and not self.reuse):
            raise XvlaError(
                "auxiliary views can be kept over calls only where features are reused",
                field="sampler.aux_every",
                found=self.aux_every,
            )


EXACT = Sampler(name="exact", about="the published ten steps, every weight as trained")
SAMPLERS: dict[str, Sampler] = {
    sampler.name: sampler
    for sampler in (
        EXACT,
        Sampler(name="merged", about="the published steps with LoRA added into its layers", weights="merged"),
        Sampler(name="fast", about="three well-placed steps", times=THREE, weights="merged"),
        Sampler(name="faster", about="two steps, first and last", times=(1.0, 0.1), weights="merged"),
        Sampler(name="int8", about="three steps, MLPs and encoder in 8 bits", times=THREE, weights="int8"),
        Sampler(name="bf16", about="three steps, policy transformer in bfloat16", times=THREE, weights="bfloat16"),
        Sampler(
            name="reuse",
            about="three steps, features of unchanged views and words kept",
            times=THREE,
            weights="merged",
            reuse=True,
        ),
        Sampler(
            name="stale",
            about="as reuse, auxiliary views looked at on every second call",
            times=THREE,
            weights="merged",
            reuse=True,
            aux_every=2,
        ),
        Sampler(name="graph", about="the published ten steps as one CUDA graph", graph=True),
        Sampler(
            name="fast-graph",
            about="three steps in bfloat16 as one CUDA graph",
            times=THREE,
            weights="bfloat16",
            graph=True,
        ),
    )
}


def find_sampler(name: str) -> Sampler:
    """The sampler of that name, or of those flow times: `1,0.3,0.1` is `merged` at three times of your own."""
    if name in SAMPLERS:
        return SAMPLERS[name]
    try:
        times = tuple(float(part) for part in name.split(","))
    except ValueError:
        raise XvlaError(
            "no such sampler", field="sampler", found=name, allowed=[*SAMPLERS, "flow times such as 1,0.3,0.1"]
        ) from None
    return Sampler(name=name, about=f"{len(times)} steps of your own", times=times, weights="merged")


def unavailable(sampler: Sampler, device: torch.device) -> str | None:
    """Why this device cannot run the sampler, or None."""
    if sampler.graph and device.type != "cuda":
        return "CUDA graphs need an NVIDIA GPU"
    if sampler.weights == "bfloat16" and not computes_bf16(device):
        return "this device has no bfloat16 arithmetic; emulating it would be slower than float32"
    if sampler.weights == "int8" and (
        device.type != "cpu" or "onednn" not in torch.backends.quantized.supported_engines
    ):
        return "8-bit layers run on CPUs with oneDNN only"
    return None


def require(sampler: Sampler, device: torch.device) -> None:
    """Refuse a sampler that this device cannot run."""
    reason = unavailable(sampler, device)
    if reason is not None:
        raise XvlaError(
            f"the sampler cannot run here: {reason}",
            field="sampler",
            found=f"{sampler.name} on {device.type}",
            allowed=[name for name, other in SAMPLERS.items() if unavailable(other, device) is None],
        )
