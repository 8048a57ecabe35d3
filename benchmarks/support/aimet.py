"""One simulated quantization by AIMET, in its own environment: ``python -m benchmarks.support.aimet '{...}'``.

AIMET starts from the module and ends with a simulation in PyTorch, so what it leaves is the logits of the held-out
images. Reading the weights and computing those logits are not counted.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aimet_torch.adaround.adaround_weight import Adaround, AdaroundParameters
from aimet_torch.batch_norm_fold import fold_all_batch_norms
from aimet_torch.common.defs import QuantScheme
from aimet_torch.common.quantsim_config.utils import get_path_for_per_channel_config, get_path_for_per_tensor_config
from aimet_torch.cross_layer_equalization import equalize_model
from aimet_torch.model_preparer import prepare_model
from aimet_torch.quantsim import QuantizationSimModel
from torch import Tensor, nn

from benchmarks.support import networks
from benchmarks.support.spending import order, spending

SHAPE = (1, 3, 32, 32)
BATCH = 32
#: Least squared error, as Modelpress takes by default.
SCHEME = QuantScheme.post_training_tf_enhanced


def network(name: str, folder: Path) -> nn.Module:
    """The trained network, with the module for every operation that AIMET asks for."""
    model = networks.TRAINED[name].make()
    model.load_state_dict(torch.load(folder / networks.STATE, weights_only=True)["model"])
    return prepare_model(model.eval())


def simulated(
    model: nn.Module,
    images: Tensor,
    weight_bits: int = 8,
    activation_bits: int = 8,
    per_channel: bool = True,
    equalize: bool = False,
    adaround: int = 0,
) -> nn.Module:
    """The network in simulated quantization; `adaround` iterations for each layer, 0: to the nearest."""
    example = torch.zeros(SHAPE)
    config = get_path_for_per_channel_config() if per_channel else get_path_for_per_tensor_config()
    if equalize:
        equalize_model(model, dummy_input=example)
    else:
        fold_all_batch_norms(model, SHAPE, example)
    with tempfile.TemporaryDirectory() as folder:
        if adaround:
            batches = list(images.split(BATCH))
            parameters = AdaroundParameters(
                batches, len(batches), default_num_iterations=adaround, forward_fn=lambda module, batch: module(batch)
            )
            model = Adaround.apply_adaround(
                model,
                example,
                parameters,
                folder,
                "rounded",
                default_param_bw=weight_bits,
                default_quant_scheme=SCHEME,
                default_config_file=config,
            )
        sim = QuantizationSimModel(
            model,
            example,
            quant_scheme=SCHEME,
            default_output_bw=activation_bits,
            default_param_bw=weight_bits,
            config_file=config,
        )
        if adaround:
            sim.set_and_freeze_param_encodings(str(Path(folder) / "rounded.encodings"))
    sim.compute_encodings(lambda module: predict(module, images))
    return sim.model


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float) -> None:
    """Quantization-aware training as AIMET documents it: the simulation is trained like any network."""
    optimizer = torch.optim.AdamW(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(images) // networks.BATCH))
    model.eval()  # batch norms are folded; there is nothing else that the mode changes
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(networks.BATCH):
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def predict(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch) for batch in images.split(BATCH)])


def main() -> None:
    job: dict[str, Any] = order()
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    options = job["options"]
    epochs, rate = options.pop("epochs", 0), options.pop("learning_rate", 0.0)
    model = network(job["network"], Path(job["model"]).parent)
    images = torch.from_numpy(np.load(job["calibration"])["input"])
    training = np.load(job["training"])
    with spending() as report:
        model = simulated(model, images, **options)
        if epochs:
            train(model, torch.from_numpy(training["input"]), torch.from_numpy(training["label"]), epochs, rate)
    held_out = torch.from_numpy(np.load(job["evaluation"])["input"])
    np.save(job["result"], predict(model.eval(), held_out).numpy())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
