"""What the device is fast in."""

from contextlib import AbstractContextManager

import torch
from torch import nn


def half_precision(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies such matrices several times faster than float32 ones, else float32.

    bfloat16 has the range of float32, so that no loss has to be scaled (Kalamkar et al. 2019,
    https://arxiv.org/abs/1905.12322).
    """
    if device == "cpu":
        return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16", False) else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32


def differentiable_in_evaluation(module: nn.Module) -> AbstractContextManager[None]:
    """While it is entered, gradients go through `module` in evaluation mode too.

    cuDNN's recurrent layers refuse that, and in training mode they drop out: others compute in their place.
    """
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    return torch.backends.cudnn.flags(enabled=not recurrent)
