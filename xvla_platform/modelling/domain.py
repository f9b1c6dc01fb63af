"""Per-domain tables: what makes X-VLA cross-embodiment (arXiv 2510.10274, Sec. 3).

A table has one row a domain. `DomainLinear` keeps a whole linear layer in each row; the soft prompts are rows of
tokens. Both look rows up through `nn.Embedding`, so that `peft` can train, save and restore single rows.
"""

import torch
from torch import Tensor, nn


class DomainLinear(nn.Module):
    """A linear layer whose weight and bias are the row of the sample's domain: `y = x @ W[d] + b[d]`.

    Row layout of `fc`: (in, out) row-major, the transpose of `nn.Linear`.
    """

    def __init__(self, in_features: int, out_features: int, num_domains: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.fc = nn.Embedding(num_domains, in_features * out_features)
        self.bias = nn.Embedding(num_domains, out_features)
        nn.init.xavier_uniform_(self.fc.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, domain_id: Tensor) -> Tensor:
        """x [B, N, in], domain_id [B], or [1] when the whole batch is one robot → [B, N, out].

        With one domain the weight is gathered once instead of B times (74 k numbers a sample at 0.9B).
        """
        weight = self.fc(domain_id).view(-1, self.in_features, self.out_features)
        bias = self.bias(domain_id)
        if domain_id.shape[0] == 1:
            return torch.addmm(bias, x.flatten(0, -2), weight[0]).view(*x.shape[:-1], -1)
        return torch.baddbmm(bias.unsqueeze(1), x, weight)


def visual_projection(in_features: int, out_features: int, num_domains: int, *, hetero: bool) -> nn.Module:
    """A shared `nn.Linear`, or a `DomainLinear` in the HPT-style variant."""
    if hetero:
        return DomainLinear(in_features, out_features, num_domains)
    return nn.Linear(in_features, out_features)
