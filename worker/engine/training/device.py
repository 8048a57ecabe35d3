"""What the device is fast in."""

import torch


def half_precision(device: str) -> torch.dtype:
    """bfloat16 where the device multiplies such matrices several times faster than float32 ones, else float32.

    bfloat16 has the range of float32, so that no loss has to be scaled (Kalamkar et al. 2019,
    https://arxiv.org/abs/1905.12322).
    """
    if device == "cpu":
        return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16", False) else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
