"""Binary weights by Brevitas, in its own environment: ``python -m benchmarks.support.binary_peer '{...}'``.

Its quantized convolutions take the place of the float ones between the first and the last layer, one scale for each
channel (the mean of absolute weights, as BWN has it), and the network is trained as Modelpress trains it: as many
epochs, the same rate and batches, soft labels of the float network beside the labels. It leaves the logits of the
held-out images.
"""

import copy
import json
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import torch
from brevitas.core.function_wrapper import TensorClampSte
from brevitas.inject.enum import ScalingImplType, ScalingPerOutputType, StatsOp
from brevitas.quant.binary import SignedBinaryWeightPerTensorConst
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.support import networks
from benchmarks.support.spending import order, spending

#: Of the soft labels, as Modelpress has it.
TEMPERATURE = 4.0
WARM_UP, DECAY = 0.05, 0.01
#: Share of the steps in which batch norms compute on the batch.
STATISTICS = 0.6


class Binary(SignedBinaryWeightPerTensorConst):
    tensor_clamp_impl = TensorClampSte  # its own works in place, which a second use of a weight does not survive
    scaling_impl_type = ScalingImplType.STATS
    scaling_stats_op = StatsOp.AVE
    scaling_per_output_type = ScalingPerOutputType.CHANNEL


def binary(model: nn.Module) -> nn.Module:
    """A copy with binary convolutions, all but the first layer."""
    model = copy.deepcopy(model)
    for path, layer in list(model.named_modules()):
        if not isinstance(layer, nn.Conv2d) or path == "conv1":
            continue
        made = qnn.QuantConv2d(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            bias=False,
            weight_quant=Binary,
        )
        made.load_state_dict(layer.state_dict(), strict=False)
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, made)
    return model


def train(model: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float) -> None:
    """AdamW, a warm-up and a cosine, clipped gradients."""
    decays = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decays, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}])
    steps = epochs * -(-len(images) // networks.BATCH)
    done = 0
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(networks.BATCH):
            share = done / steps
            model.train()
            for norm in model.modules():
                if isinstance(norm, nn.BatchNorm2d):
                    norm.train(share < STATISTICS)
            for group in optimizer.param_groups:
                group["lr"] = rate * min((share + 1 / steps) / WARM_UP, 0.5 + 0.5 * np.cos(np.pi * share))
            with torch.no_grad():
                wanted = functional.log_softmax(teacher(images[batch]) / TEMPERATURE, 1)
            scores = model(images[batch])
            soft = functional.kl_div(
                functional.log_softmax(scores / TEMPERATURE, 1), wanted, reduction="batchmean", log_target=True
            )
            loss = soft * TEMPERATURE**2 + functional.cross_entropy(scores, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += 1


def main() -> None:
    job: dict[str, Any] = order()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    model = networks.TRAINED[job["network"]].make()
    state = torch.load(Path(job["model"]).parent / networks.STATE, weights_only=True)
    model.load_state_dict(state["model"])
    training = np.load(job["training"])
    with spending() as report:
        student = binary(model)
        images, labels = torch.from_numpy(training["input"]), torch.from_numpy(training["label"])
        train(student, model.eval(), images, labels, **job["options"])
    held_out = torch.from_numpy(np.load(job["evaluation"])["input"])
    with torch.no_grad():
        logits = torch.cat([student.eval()(batch) for batch in held_out.split(networks.BATCH)])
    np.save(job["result"], logits.numpy())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
