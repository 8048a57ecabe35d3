"""A small language model (Llama's layers and names, so that peers can read its weights), trained on `text`."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, LENGTH = 4096, 128
WIDTH, HEADS, DEPTH, INNER = 256, 4, 6, 768
EPSILON, THETA = 1e-6, 10_000.0
#: Steps of BATCH sequences, and the peak of the learning rate: some 25 minutes on two cores, seconds on a GPU.
STEPS, BATCH, RATE = 2800, 8, 2e-3
_EVERY = 200


class Norm(nn.Module):
    """Root mean square norm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * self.weight


class Attention(nn.Module):
    """Causal, with rotary positions."""

    cosine: Tensor
    sine: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            self.add_module(name, nn.Linear(WIDTH, WIDTH, bias=False))
        size = WIDTH // HEADS
        angles = torch.arange(LENGTH)[:, None] / THETA ** (torch.arange(0, size, 2) / size)
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), -1e9).triu(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = self._turned(query) @ self._turned(key).transpose(2, 3) / math.sqrt(WIDTH // HEADS)
        weights = (scores + self.mask).softmax(-1)
        return self.o_proj((weights @ value).transpose(1, 2).flatten(2))

    def _turned(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return x * self.cosine + torch.cat([-right, left], -1) * self.sine


class Inner(nn.Module):
    """The gated network between attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(WIDTH, INNER, bias=False)
        self.up_proj = nn.Linear(WIDTH, INNER, bias=False)
        self.down_proj = nn.Linear(INNER, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention and the gated network, each behind a norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), Inner()
        self.input_layernorm, self.post_attention_layernorm = Norm(), Norm()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    """Embedding, layers, norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(DEPTH))
        self.norm = Norm()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)


class Language(nn.Module):
    """(batch, LENGTH) tokens -> (batch, LENGTH, VOCABULARY) scores of the token after each."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Body()
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        return self.lm_head(self.model(input))


def initialized() -> Language:
    """Random weights, as Llama's."""
    torch.manual_seed(0)
    model = Language()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
    return model


@dataclass(frozen=True)
class Progress:
    """Where a training stands in its file."""

    state: Path
    device: str


def train(sequences: NDArray[np.int64], progress: Progress) -> Language:
    """AdamW with one cycle; continues behind the last steps that were finished.

    Args:
        sequences: (n, LENGTH + 1).
    """
    model = initialized().to(progress.device)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.1)
    order = np.random.default_rng(0).integers(0, len(sequences), (STEPS, BATCH))
    done = 0
    if progress.state.exists():
        saved = torch.load(progress.state, weights_only=True, map_location=progress.device)
        for part, name in ((model, "model"), (optimizer, "optimizer"), (schedule, "schedule")):
            part.load_state_dict(saved[name])
        done = saved["steps"]
    started, total = time.monotonic(), 0.0
    for step in range(done, STEPS):
        batch = torch.from_numpy(sequences[order[step]]).to(progress.device)
        loss = functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if (step + 1) % _EVERY == 0:
            print(
                f"  step {step + 1}/{STEPS}: loss {total / _EVERY:.3f}, {time.monotonic() - started:.0f} s", flush=True
            )
            total = 0.0
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**saved, "schedule": schedule.state_dict(), "steps": step + 1}, progress.state)
    return model.cpu().eval()


def loaded(state: Path) -> Language:
    """The trained model."""
    model = Language()
    model.load_state_dict(torch.load(state, weights_only=True, map_location="cpu")["model"])
    return model.eval()


def runner(weights: Path) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """What gives the logits of the model with these weights, an ``.npz`` by their names."""
    model = Language()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in np.load(weights).items()})

    def run(tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits: NDArray[np.float32] = model(torch.from_numpy(tokens)).numpy()
        return logits

    return run
