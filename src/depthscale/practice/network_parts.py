"""What the networks of the experiments are made of: attention, branches, paths that drop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


class SelfAttention(nn.Module):
    """Multi-head self-attention that drops attention weights at the rate ``drop``, and its output.

    [example, token, dim] in and out. The rate is a plain attribute, which a schedule sets.
    """

    def __init__(self, dim: int, heads: int, drop: float) -> None:
        super().__init__()
        self.heads = heads
        self.drop = drop
        self.mix = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)
        self.drop_projection = nn.Dropout(drop)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Mix the tokens of each example."""
        examples, count, dim = tokens.shape
        # [3, example, head, token, dim/heads]
        parts = self.mix(tokens).view(examples, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind()
        rate = self.drop if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=rate)
        joined = mixed.transpose(1, 2).reshape(examples, count, dim)
        out: torch.Tensor = self.drop_projection(self.project(joined))
        return out


class TransformerBlock(nn.Module):
    """Attention and an MLP, each after a LayerNorm and around an identity branch."""

    def __init__(self, dim: int, heads: int, hidden: int, drop: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim, heads, drop)
        self.norm_mlp = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, hidden)
        self.drop_hidden = nn.Dropout(drop)
        self.narrow = nn.Linear(hidden, dim)
        self.drop_mlp = nn.Dropout(drop)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[example, token, dim] in and out."""
        tokens = tokens + self.attention(self.norm_attention(tokens))
        hidden = self.drop_hidden(F.gelu(self.widen(self.norm_mlp(tokens))))
        out: torch.Tensor = tokens + self.drop_mlp(self.narrow(hidden))
        return out


class VisionTransformer(nn.Module):
    """Patches and a class token with learned positions, blocks, a readout of the class token."""

    def __init__(
        self, embedding: nn.Conv2d, places: int, blocks: Sequence[nn.Module], classes: int
    ) -> None:
        super().__init__()
        dim = embedding.out_channels
        self.embedding = embedding
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.positions = nn.Parameter(0.02 * torch.randn(1, places + 1, dim))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """[example, channel, height, width] to [example, class]."""
        patches = self.embedding(pictures).flatten(2).transpose(1, 2)
        first = self.token.expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        logits: torch.Tensor = self.head(self.norm(tokens[:, 0]))
        return logits


class DropPath(nn.Module):
    """Leave out the branch of each example with probability ``drop_prob``; scale the others up."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """[example, ...] in and out; the identity in eval mode and at rate 0."""
        if not self.training or self.drop_prob == 0.0:
            return branch
        keep = 1.0 - self.drop_prob
        mask = branch.new_empty((len(branch),) + (1,) * (branch.ndim - 1)).bernoulli_(keep)
        return branch * mask.div_(keep)


class ResidualBlock(nn.Module):
    """Norm, ReLU and convolution, twice, beside an identity branch without weights."""

    def __init__(
        self,
        before: int,
        after: int,
        stride: int,
        norm: Callable[[int], nn.Module],
        drop: float,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.grow = after - before
        self.norm_first = norm(before)
        self.first = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm_second = norm(after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.drop_path = DropPath(drop)

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        """[example, channel, height, width]."""
        branch = self.first(F.relu(self.norm_first(signal)))
        branch = self.second(F.relu(self.norm_second(branch)))
        if self.stride > 1:  # odd sizes: the last average is of the pixels that are there
            signal = F.avg_pool2d(signal, self.stride, ceil_mode=True, count_include_pad=False)
        if self.grow:
            signal = F.pad(signal, (0, 0, 0, 0, 0, self.grow))
        out: torch.Tensor = signal + self.drop_path(branch)
        return out


class ResidualNetwork(nn.Module):
    """A convolution, residual blocks, and a readout of the averages of all pixels."""

    def __init__(
        self, stem: nn.Module, blocks: Sequence[nn.Module], norm: nn.Module, head: nn.Module
    ) -> None:
        super().__init__()
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """[example, channel, height, width] to [example, class]."""
        signal = self.stem(pictures)
        for block in self.blocks:
            signal = block(signal)
        logits: torch.Tensor = self.head(F.relu(self.norm(signal)).mean(dim=(2, 3)))
        return logits
