"""Makes the batch of a model that was exported with a fixed one symbolic again, where the graph allows it.

The graph is followed twice without numbers, with the batch it has and with another one. Where an operator carries the
old batch as a number (a reshape, an expand, zeros for a recurrent layer), the number becomes the size of the input.
No operator may work along the batch, and what comes out has to answer several samples as the original answers them
one after the other.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, fx

from worker.engine.formats.failures import FAILURES
from worker.engine.formats.rebatch import Rewriter
from worker.engine.network import Network, TensorSpec

BATCH: Final = "batch"
#: How large the random inputs are of each run that the result is compared with.
_SCALES: Final = (1.0, 100.0, 0.01)


def symbolic_batch(network: Network) -> Network:
    """`network` with a symbolic batch, and a note that says so; itself where it has one or cannot get one.

    A network that cannot get one is run sample by sample where it was exported with a batch of 1.
    """
    fixed = {spec.shape[0] if spec.shape else 0 for spec in network.inputs}
    if len(fixed) != 1 or not isinstance(size := fixed.pop(), int) or size < 1:
        return network
    try:
        with _quiet():
            module = Rewriter(network, size).module()
        if _agrees(network, module, size):
            return _symbolic(network, module, size)
    except FAILURES:
        pass
    how = "it is run one sample at a time" if size == 1 else "export it with a dynamic batch or one of 1"
    note = f"The model was exported for a batch of {size}, which could not be made dynamic: {how}."
    return replace(network, notes=[*network.notes, note])


@contextmanager
def _quiet() -> Iterator[None]:
    """A shape that does not fit is an answer here, not an error worth a trace in the log."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _symbolic(network: Network, module: fx.GraphModule, size: int) -> Network:
    inputs, outputs = (tuple(_batched(spec) for spec in specs) for specs in (network.inputs, network.outputs))
    note = f"The model was exported for a batch of {size}; it takes any number of samples now."
    return replace(network, module=module, inputs=inputs, outputs=outputs, notes=[*network.notes, note], source=None)


def _batched(spec: TensorSpec) -> TensorSpec:
    return replace(spec, shape=(BATCH, *spec.shape[1:]), sizes=(2, *spec.sizes[1:]) if spec.sizes else ())


@torch.no_grad()
def _agrees(network: Network, module: fx.GraphModule, size: int) -> bool:
    """Whether `module` answers several batches at once, and one sample alone, as `network` answers them in turn."""
    generator = torch.Generator().manual_seed(0)
    batches = [[_random(spec.example(), scale, generator) for spec in network.inputs] for scale in _SCALES]
    wanted = [network.module(*batch) for batch in batches]
    together = module(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    alone = module(*(value[:1] for value in batches[0]))
    return all(
        _close(found, torch.cat(parts)) and _close(single, parts[0][:1])
        for found, single, parts in zip(together, alone, zip(*wanted, strict=True), strict=True)
    )


def _random(example: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Normal numbers; 0 and 1 for integers, which any vocabulary has."""
    if example.is_floating_point():
        return (scale * torch.randn(example.shape, generator=generator)).to(example.dtype)
    return torch.randint(0, 2, example.shape, generator=generator).to(example.dtype)


def _close(found: Tensor, wanted: Tensor) -> bool:
    if not found.is_floating_point():
        return torch.equal(found, wanted)
    if not wanted.isfinite().any():
        return False  # says nothing
    scale = float(wanted.nan_to_num(posinf=0, neginf=0).abs().max())
    return torch.allclose(found, wanted, rtol=1e-4, atol=1e-5 * max(scale, 1e-3), equal_nan=True)
