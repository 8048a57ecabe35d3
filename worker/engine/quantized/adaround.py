"""Adaptive rounding (AdaRound, Nagel et al. 2020, https://arxiv.org/abs/2004.10568).

Rounding each weight to its nearest integer is best for the weights, not for the layer's output, where errors of
neighbouring weights add up or cancel. Layer by layer, whether a weight is rounded up or down is chosen so that

    min_V  E |f(W x + b) - f(W~ x' + b)|^2 + lambda sum(1 - |2 h(V) - 1|^beta),
    W~ = s clamp(floor(W / s) + h(V), -top, top),   h(V) = clamp((zeta - gamma) sigmoid(V) + gamma, 0, 1)

(equations 21 to 25): x is what the layer reads in the float network, x' in the quantized one whose earlier layers are
already rounded, f the ReLU behind the layer if there is one. beta falls from 20 to 2 after a warm-up, and what is left
between 0 and 1 is driven to an end. Scales and activation grids stay.

How it is computed here:

- E is over rows of patches (`rows`), so an iteration is two matrix products.
- Output channels are independent problems. With residuals in units of the channel's scale and inputs of unit power,
  all have the same curvature, and one lambda and one learning rate serve every layer.
- Where the bias will be corrected, it takes the mean of the residual: `b' = b - E[W~ x' - W x]`. So rows are centred,
  and rounding is left to lower the variance.
- A layer with fewer rows than weights to a channel would fit noise: its second moments are shrunk to their diagonal,
  `(1 - a) E[x' x'^T] + a diag(E[x'^2])`.
- Gradients are written out: `dE/dW~ = 2 E[(W~ x' - W x) x'^T]`.
- Weights that are exactly 0 stay 0: a pruned layer keeps its zeros.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from worker.engine.data.samples import Samples
from worker.engine.network import Network
from worker.engine.quantized.fake import fake_quantized, put, rounded_bias
from worker.engine.quantized.form import Quantization, Weight
from worker.engine.quantized.placement import Layer, called, layer_calls, relu_bounds
from worker.engine.quantized.rows import Rows, Sampler

#: Of the optimizer, for each layer.
ITERATIONS: Final = 300
_ZETA: Final = 1.1
_GAMMA: Final = -0.1
_LEARNING_RATE: Final = 0.1
_LAMBDA: Final = 0.1
#: Share of the iterations without the regularizer.
_WARM_UP: Final = 0.2
#: Its exponent, first and last.
_BETA: Final = (20.0, 2.0)
_MOMENTS: Final = (0.9, 0.999)
#: Multiplications of a minibatch, which decide how many rows it has.
_WORK: Final = 1 << 25
_ROWS: Final = (32, 256)
#: Distance from one half below which the regularizer hardly pulls.
_UNDECIDED: Final = 0.05
#: Iterations between looks at whether everything has settled.
_LOOK: Final = 50


@dataclass(frozen=True)
class Problem:
    """One layer's rounding, in units of its scales; all of shape (groups, ..., ...).

    Attributes:
        inputs: (groups, rows, k): of the layer; centred where the bias takes the mean.
        residual: (groups, rows, channels): of the unrounded weight on the quantized network's inputs, centred too.
        outputs: (groups, rows, channels): what the float layer answers; None without bounds.
        bounds: lowest and highest value that the ReLU behind the layer lets through, each (groups, 1, channels).
        below: (groups, channels, k): rounded down, minus the weight; in -1..0 where nothing is clipped.
        span: 1 where there is a choice, 0 where both ways give the same integer.
    """

    inputs: Tensor
    residual: Tensor
    outputs: Tensor | None
    bounds: tuple[Tensor, Tensor] | None
    below: Tensor
    span: Tensor


def adaround(
    quantization: Quantization,
    samples: Samples,
    *,
    device: str = "cpu",
    seed: int = 0,
    bias_correction: bool,
    progress: Callable[[float], None] = lambda fraction: None,
    iterations: int = ITERATIONS,
) -> Quantization:
    """Round the weights of the layers that compute on integers up or down as their outputs need it.

    Args:
        quantization: static, with weights rounded to nearest; its network is on `device`.
        bias_correction: take the mean shift of rounding back through the biases.
        progress: called with 0..1.
        iterations: of the optimizer, for each layer.

    Returns:
        The same quantization with new integers, and with biases corrected for them.
    """
    network = quantization.network
    module = fake_quantized(quantization).to(device)
    sampler = Sampler(network, module, samples, device, seed)
    random = torch.Generator(device).manual_seed(seed)
    integer = {str(node.target) for node, _ in layer_calls(network.module) if node.name in quantization.integer}
    layers = called(network.module, [path for path in quantization.weights if path in integer])
    work = [layer.weight.numel() for _, layer, _ in layers]
    weights = dict(quantization.weights)
    for index, (path, layer, calls) in enumerate(layers):
        rows = sampler.rows(calls, layer)
        corrects = bias_correction and layer.bias is not None
        weights[path] = _rounded(layer, weights[path], rows, corrects, _bounds(network, calls), random, iterations)
        bias = rounded_bias(quantization, path, weights[path])
        put(module, path, weights[path].dequantized().to(device), None if bias is None else bias.to(device))
        progress(sum(work[: index + 1]) / sum(work))
    return replace(quantization, weights=weights)


def _bounds(network: Network, calls: list[str]) -> tuple[float, float] | None:
    """The ReLU-like function that is all that follows every call of a layer."""
    found = set()
    for node in network.module.graph.nodes:
        if node.name in calls:
            found.add(relu_bounds(network.module, next(iter(node.users))) if len(node.users) == 1 else None)
    return found.pop() if len(found) == 1 else None


@torch.no_grad()
def _rounded(
    layer: Layer,
    weight: Weight,
    rows: Rows,
    corrects: bool,
    bounds: tuple[float, float] | None,
    random: torch.Generator,
    iterations: int,
) -> Weight:
    """`weight` rounded for `rows`."""
    top = 2 ** (weight.bits - 1) - 1
    inputs, outputs = rows.inputs.transpose(0, 1).contiguous(), rows.outputs.transpose(0, 1)
    exact = layer.weight.detach().float().reshape(len(inputs), -1, inputs.shape[2])
    bias = exact.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach().float()
    scale = weight.scale.to(exact.device).expand(len(layer.weight)).reshape(len(inputs), 1, -1)
    steps = exact / scale.transpose(1, 2)
    low = torch.clamp(torch.floor(steps), -top, top)
    span = torch.where(exact == 0, 0.0, torch.clamp(torch.floor(steps) + 1, -top, top) - low)
    residual = (torch.bmm(inputs, exact.transpose(1, 2)) + bias.reshape(len(inputs), 1, -1) - outputs) / scale
    mean, shift = inputs.mean(1, keepdim=True), residual.mean(1, keepdim=True)
    if corrects:
        inputs, residual = inputs.sub_(mean), residual.sub_(shift)
    problem = Problem(
        inputs=inputs,
        residual=residual,
        outputs=None if bounds is None else outputs / scale,
        bounds=None if bounds is None else (torch.zeros_like(scale), bounds[1] / scale),
        below=low - steps,
        span=span,
    )
    values = low + span * round_up(problem, random, iterations)
    if corrects:
        shift += torch.bmm(mean, (values - steps).transpose(1, 2))
        bias = bias - (shift * scale).flatten()
    home = weight.values.device
    values = values.to(torch.int8).reshape(layer.weight.shape)
    return replace(weight, values=values.to(home), bias=None if layer.bias is None else bias.to(home))


def round_up(problem: Problem, random: torch.Generator, iterations: int = ITERATIONS) -> Tensor:
    """Which weights to round up: 1 or 0, (groups, channels, k)."""
    groups, rows, k = problem.inputs.shape
    power = problem.inputs.square().mean(1)  # (groups, k)
    unit = power.mean(1).clamp(min=torch.finfo(power.dtype).tiny).reshape(groups, 1, 1)
    diagonal = (power[:, None, :] / unit).expand_as(problem.span)
    shrinkage = k / (k + rows)
    v = _inverse(-problem.below.clamp(-1, 0))
    first, second = torch.zeros_like(v), torch.zeros_like(v)
    size = min(rows, max(_ROWS[0], min(_ROWS[1], _WORK // problem.span.numel())))
    for step in range(1, iterations + 1):
        at = torch.randint(rows, (size,), generator=random, device=v.device)
        inputs = problem.inputs.index_select(1, at)
        sigmoid = torch.sigmoid(v)
        h = sigmoid.mul(_ZETA - _GAMMA).add_(_GAMMA).clamp_(0, 1)
        error = torch.addcmul(problem.below, problem.span, h)
        residual = _seen(problem, at, torch.baddbmm(problem.residual.index_select(1, at), inputs, error.mT))
        gradient = torch.bmm(residual.mT, inputs).mul_((1 - shrinkage) * 2 / size).div_(unit)
        gradient.addcmul_(error, diagonal, value=2 * shrinkage)
        gradient.add_(_pull(h, step / iterations))
        # h is flat where it is clipped
        slope = sigmoid.mul_(1 - sigmoid).mul_((h > 0) & (h < 1)).mul_(_ZETA - _GAMMA)
        gradient.mul_(slope).mul_(problem.span)
        _adam(v, gradient, first, second, step)
        if step % _LOOK == 0 and _settled(h, problem.span):
            break
    return (_rectified(v) >= 0.5).to(v.dtype)


def _inverse(h: Tensor) -> Tensor:
    """The V of a soft rounding."""
    return torch.logit((h - _GAMMA) / (_ZETA - _GAMMA))


def _rectified(v: Tensor) -> Tensor:
    return torch.sigmoid(v).mul_(_ZETA - _GAMMA).add_(_GAMMA).clamp_(0, 1)


def _seen(problem: Problem, at: Tensor, residual: Tensor) -> Tensor:
    """What of the residual the function behind the layer lets through, (groups, rows, channels)."""
    if problem.bounds is None or problem.outputs is None:
        return residual
    outputs = problem.outputs.index_select(1, at)
    return torch.clamp(outputs + residual, *problem.bounds) - torch.clamp(outputs, *problem.bounds)


def _pull(h: Tensor, done: float) -> Tensor | float:
    """Gradient of the regularizer."""
    if done < _WARM_UP:
        return 0.0
    share = (done - _WARM_UP) / (1 - _WARM_UP)
    beta = _BETA[1] + (_BETA[0] - _BETA[1]) * (1 - share)
    distance = h.mul(2).sub_(1)
    # The 19th power of a small number is denormal, and arithmetic on those is slow.
    return distance.abs().clamp_(min=_UNDECIDED).pow_(beta - 1).mul_(torch.sign(distance)).mul_(-2 * beta * _LAMBDA)


def _adam(v: Tensor, gradient: Tensor, first: Tensor, second: Tensor, step: int) -> None:
    """One step of Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980), in place."""
    a, b = _MOMENTS
    first.lerp_(gradient, 1 - a)
    second.mul_(b).addcmul_(gradient, gradient, value=1 - b)
    scale = math.sqrt(1 - b**step) / (1 - a**step)
    v.addcdiv_(first, second.sqrt().add_(1e-8), value=-_LEARNING_RATE * scale)


def _settled(h: Tensor, span: Tensor) -> bool:
    """Whether nearly no choice is open."""
    undecided = (h > 0.05) & (h < 0.95) & (span > 0)
    return int(undecided.sum()) <= undecided.numel() // 1000
