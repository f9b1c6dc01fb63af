"""Arithmetic of one sample, counted on shapes alone: what the encoder and the policy transformer cost.

In: a configuration. Out: floating-point operations of a forward pass (a multiply-add is two). Nothing is computed
and no memory is taken: the model is built on torch's meta device.
"""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from xvla_platform.modelling import florence
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.xvla import XVLA


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Forward pass of one sample.

    Attributes:
        encoder: Florence-2 on every view and the instruction.
        policy: One prediction of the soft-prompted transformer.
        feature_numbers: Numbers that the encoder hands over (vlm_features and aux_visual_inputs).
    """

    encoder: int
    policy: int
    feature_numbers: int

    def step(self, *, trains_encoder: bool, trains_policy: bool, encodes: bool) -> int:
        """One training sample: forward, and backward through what lies above something trained.

        A backward pass costs a forward pass for the gradient of the activations, which the slot at the bottom of the
        policy transformer always needs, and another one where the weights themselves are trained.
        """
        policy = self.policy * (3 if trains_policy or trains_encoder else 2)
        encoder = self.encoder * (3 if trains_encoder else 1) if encodes or trains_encoder else 0
        return policy + encoder


_COUNTED: dict[str, Flops] = {}  # seconds of work at full size, asked for twice a run


def count_flops(config: XVLAConfig, image_size: tuple[int, int]) -> Flops:
    """Count both halves for images of `image_size` (height, width) and the configuration's views."""
    key = repr((config, image_size))
    if key not in _COUNTED:
        _COUNTED[key] = _count(config, image_size)
    return _COUNTED[key]


def _count(config: XVLAConfig, image_size: tuple[int, int]) -> Flops:
    with torch.device("meta"), torch.no_grad():
        model = XVLA(config).eval()
        assert model.vlm is not None
        with FlopCounterMode(display=False) as encoder:
            image = torch.zeros(1, 3, *image_size)
            views = torch.stack([florence.image_features(model.vlm, image) for _ in range(config.num_views)], dim=1)
            words = torch.zeros(1, config.language_max_length, dtype=torch.long)
            main, aux = florence.with_words(model.vlm, views, words)
        with FlopCounterMode(display=False) as policy:
            model.predict(
                domain_id=torch.zeros(1, dtype=torch.long),
                vlm_features=main,
                aux_visual_inputs=aux,
                proprio=torch.zeros(1, config.space.dim),
                noisy_action=torch.zeros(1, config.num_actions, config.space.dim),
                t=torch.zeros(1),
            )
    return Flops(
        encoder=encoder.get_total_flops(),
        policy=policy.get_total_flops(),
        feature_numbers=main.numel() + aux.numel(),
    )
