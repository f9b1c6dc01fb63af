"""Per-domain tables: what makes X-VLA cross-embodiment (arXiv 2510.10274, Sec. 3).

A table has one row a domain. `DomainLinear` keeps a whole linear layer in each row; the soft prompts are rows of
tokens. Both look rows up through `nn.Embedding`, so that `peft` can train, save and restore single rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PROMPT_STD = 0.02


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


class Resampler(nn.Module):
    """A domain's own way to read observations: its queries attend to its keys and values of all feature tokens.

    The HPT-style stem (arXiv 2510.10274, App. I): whatever the number of tokens, the trunk gets `queries` of them.
    """

    def __init__(self, in_features: int, width: int, num_domains: int, *, queries: int, heads: int) -> None:
        super().__init__()
        self.width = width
        self.heads = heads
        self.queries = nn.Embedding(num_domains, queries * width)
        self.key_value = DomainLinear(in_features, 2 * width, num_domains)
        nn.init.normal_(self.queries.weight, std=PROMPT_STD)
        # A row is a whole layer here: Xavier over the table, as the action heads have it, would leave nothing of it.
        bound = row_bound(in_features, 2 * width)
        nn.init.uniform_(self.key_value.fc.weight, -bound, bound)

    def forward(self, features: Tensor, domain_id: Tensor) -> Tensor:
        """features [B, N, D], domain_id [B] or [1] → [B, queries, width]; no tokens in, none out."""
        batch, count, _ = features.shape
        if count == 0:
            return features.new_zeros(batch, 0, self.width)
        keys, values = (self._split(part) for part in self.key_value(features, domain_id).chunk(2, dim=-1))
        asked = self.queries(domain_id).view(domain_id.shape[0], -1, self.width).expand(batch, -1, -1)
        read = F.scaled_dot_product_attention(self._split(asked), keys, values)
        return read.transpose(1, 2).flatten(2)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def row_bound(in_features: int, out_features: int) -> float:
    """Xavier's bound of one row that holds a whole layer."""
    return (6 / (in_features + out_features)) ** 0.5
