"""X-VLA: Florence-2 features, the soft-prompted transformer, and the published sampler.

`vlm` and `transformer` carry the official names, so that an adapter of the policy transformer opens over the
official class too. State-dict keys are those of transformers' native Florence-2; `layouts.py` maps the others.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xvla_platform.modelling import florence, objective
from xvla_platform.modelling.config import XVLAConfig
from xvla_platform.modelling.transformer import SoftPromptedTransformer

DENOISING_STEPS = 10


def published_times(steps: int = DENOISING_STEPS) -> tuple[float, ...]:
    """The flow times of X-VLA's sampler: evenly spaced, from 1 down to 1 / steps."""
    return tuple(i / steps for i in range(steps, 0, -1))


PUBLISHED_TIMES = published_times()


class XVLA(nn.Module):
    """The whole model; `vlm` is None where only cached features are used."""

    def __init__(self, config: XVLAConfig, *, with_vlm: bool = True) -> None:
        super().__init__()
        self.config = config
        self.space = config.space
        self.vlm = florence.build_florence(config.florence) if with_vlm else None
        self.transformer = SoftPromptedTransformer(config)

    @property
    def encoder(self) -> nn.Module:
        """Florence-2, where the model was built with it."""
        if self.vlm is None:
            raise RuntimeError("this model was built for cached features: it has no encoder")
        return self.vlm

    def reaches(self, name: str) -> bool:
        """Whether the losses depend on the parameter of this name; what they do not is never trained."""
        return True

    def encode(self, *, input_ids: Tensor, pixel_values: Tensor, image_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Images and instruction → (vlm_features, aux_visual_inputs); shapes as in `florence.encode`."""
        return florence.encode(self.encoder, input_ids=input_ids, pixel_values=pixel_values, image_mask=image_mask)

    def predict(
        self,
        *,
        domain_id: Tensor,
        vlm_features: Tensor,
        aux_visual_inputs: Tensor,
        proprio: Tensor,
        noisy_action: Tensor,
        t: Tensor,
    ) -> Tensor:
        """Raw clean-action prediction [B, T, A] from a noisy chunk [B, T, A] at flow time t [B]."""
        context = self._context(domain_id, (vlm_features, aux_visual_inputs))
        return self._denoise(domain_id, context, proprio, noisy_action, t)

    def _context(self, domain_id: Tensor, features: tuple[Tensor, Tensor]) -> Tensor:
        vlm, aux = (part.float() for part in features)  # a feature store may keep bfloat16
        return self.transformer.context(domain_id=domain_id, vlm_features=vlm, aux_visual_inputs=aux)

    def _denoise(self, domain_id: Tensor, context: Tensor, proprio: Tensor, noisy_action: Tensor, t: Tensor) -> Tensor:
        proprio, noisy_action = objective.mask_inputs(self.space, proprio, noisy_action)
        # LeRobot's states may be wider than its actions; what a robot does not have is zeros there, as published.
        proprio = F.pad(proprio, (0, self.config.dim_proprio - proprio.shape[-1]))
        return self.transformer(domain_id=domain_id, context=context, noisy_action=noisy_action, proprio=proprio, t=t)

    def forward(
        self,
        *,
        domain_id: Tensor,
        proprio: Tensor,
        action: Tensor,
        noise: Tensor,
        t: Tensor,
        features: tuple[Tensor, Tensor] | None = None,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Training losses by name; features are encoded here unless given.

        Args:
            domain_id: [B] or [1].
            proprio: [B, P] model units. action, noise: [B, T, A]. t: [B].
            features: (vlm_features, aux_visual_inputs), or None with the three encoder inputs.
        """
        if features is None:
            assert input_ids is not None
            assert pixel_values is not None
            assert image_mask is not None
            features = self.encode(input_ids=input_ids, pixel_values=pixel_values, image_mask=image_mask)
        predicted = self.predict(
            domain_id=domain_id,
            vlm_features=features[0],
            aux_visual_inputs=features[1],
            proprio=proprio,
            noisy_action=objective.interpolate(action, noise, t),
            t=t,
        )
        return objective.losses(self.space, predicted, action)

    @torch.no_grad()
    def generate(
        self,
        *,
        domain_id: Tensor,
        features: tuple[Tensor, Tensor],
        proprio: Tensor,
        noise: Tensor,
        times: Sequence[float] = PUBLISHED_TIMES,
        observe: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """The published sampler: re-noise the newest estimate with the same noise, at one flow time after another.

        What does not change between the steps (the observation's tokens) is projected once.

        Args:
            features: (vlm_features, aux_visual_inputs) of the observation.
            proprio: [B, P]. noise: [B, T, A], which fixes the chunk.
            times: Flow times in falling order, 1 is noise; `published_times(10)` is X-VLA's own sampler.
            observe: Called with each raw estimate [B, T, A].

        Returns:
            [B, T, real_dim] action in model units; grippers are probabilities of closed.
        """
        context = self._context(domain_id, features)
        estimate = torch.zeros_like(noise)
        for time in times:
            t = torch.full((noise.shape[0],), time, device=noise.device, dtype=torch.float32)
            noisy = objective.interpolate(estimate, noise, t).to(noise.dtype)
            estimate = self._denoise(domain_id, context, proprio, noisy, t)
            if observe is not None:
                observe(estimate)
        return objective.finish(self.space, estimate.float())
