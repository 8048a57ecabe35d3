"""A transformer with a convolutional stem (CCT, Hassani et al. 2021, https://arxiv.org/abs/2104.05704)."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS, DEPTH, RATIO = 192, 3, 4, 2
STEM, TOKENS = (32, 64), 64


class Attention(nn.Module):
    """(batch, tokens, WIDTH) -> the same; a linear layer each for queries, keys, values and the result."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        return self.out(functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and a two-layer network, each behind a layer norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(WIDTH), Attention()
        self.norm2 = nn.LayerNorm(WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, RATIO * WIDTH), nn.Linear(RATIO * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """For 32x32 images, which three convolutions turn into 8x8 tokens."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (3, *STEM, WIDTH)
        self.stem = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(before, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
                for before, width in itertools.pairwise(widths)
            )
        )
        self.position = nn.Parameter(torch.empty(1, TOKENS, WIDTH))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.layers = nn.Sequential(*(Layer() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = self.stem
        x = third(functional.max_pool2d(second(functional.max_pool2d(first(x), 2)), 2))
        x = self.layers(x.flatten(2).transpose(1, 2) + self.position)
        return self.fc(self.norm(x).mean(1))
