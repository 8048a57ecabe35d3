"""Architectures that users upload, tiny and with random weights: half from transformers, half written out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.export import Dim

from tests.support import written_out
from tests.support.networks import MobileNet, ResNet18, Transformer
from worker.engine.targets.quiet import quiet

#: The size of a dimension that varies from batch to batch.
LENGTH: Final = "length"
_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
        shape: of a sample; `LENGTH` is a size that varies.
        kind: ``float``; ``tokens``: integers less than `below`; ``mask``: integers, ones and then zeros; ``valid`` and
            ``padding``: boolean, where the mask is one and where it is zero.
        below: for tokens.
    """

    shape: tuple[int | str, ...]
    kind: str = "float"
    below: int = 30

    def draw(self, batch: int, length: int, generator: torch.Generator) -> Tensor:
        """Random values of shape (batch, *shape)."""
        shape = [batch, *(length if isinstance(size, str) else size for size in self.shape)]
        if self.kind == "float":
            return torch.randn(shape, generator=generator)
        if self.kind == "tokens":
            return torch.randint(0, self.below, shape, generator=generator)
        ends = torch.randint(max(1, length // 2), length + 1, (batch, 1), generator=generator)
        valid = torch.arange(length) < ends
        return {"mask": valid.long(), "valid": valid, "padding": ~valid}[self.kind]


@dataclass(frozen=True)
class Architecture:
    """A network, and its inputs in the order and under the names of its `forward`."""

    make: Callable[[], nn.Module]
    inputs: Mapping[str, Input]

    @property
    def varies(self) -> bool:
        """Whether another size than that of the batch varies."""
        return any(LENGTH in spec.shape for spec in self.inputs.values())

    def build(self) -> nn.Module:
        """The network in eval mode, its norms with gains, offsets and statistics as after training."""
        torch.manual_seed(0)
        module = self.make().eval()
        for part in module.modules():
            if isinstance(part, _NORMS) and part.weight is not None:
                nn.init.uniform_(part.weight, 0.6, 1.4)
                if getattr(part, "bias", None) is not None:
                    nn.init.normal_(part.bias, 0, 0.1)
        norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train().momentum = None  # the mean of what is seen
        if norms:
            with torch.no_grad():
                module(**self.draw(16, seed=1))
        for norm in norms:
            norm.eval().momentum = 0.1
        return module

    def draw(self, batch: int, length: int = 8, seed: int = 0) -> dict[str, Tensor]:
        """Random inputs by name."""
        generator = torch.Generator().manual_seed(seed)
        return {name: spec.draw(batch, length, generator) for name, spec in self.inputs.items()}

    def axes(self) -> dict[str, dict[int, str]]:
        """Input name -> the dimensions that vary and what they are called."""
        return {
            name: {0: "batch", **{axis: size for axis, size in enumerate(spec.shape, 1) if isinstance(size, str)}}
            for name, spec in self.inputs.items()
        }


def export(architecture: Architecture, exporter: str, path: Path, opset: int | None = None) -> nn.Module:
    """Write the architecture as its user does, every size that varies symbolic where the exporter can; returns it.

    Args:
        exporter: ``dynamo`` and ``torchscript`` write ONNX, ``pt2`` is `torch.export.save`.
    """
    module, inputs, axes = architecture.build(), architecture.draw(2), architecture.axes()
    for recurrent in (torch.ops.aten.lstm.input, torch.ops.aten.gru.input):
        recurrent._dispatch_cache.clear()  # what torch.export leaves there makes a constant of the next one's length
    with quiet():
        if exporter == "torchscript":
            options = {"input_names": list(inputs), "dynamic_axes": axes, "opset_version": opset}
            torch.onnx.export(module, (), path, kwargs=inputs, dynamo=False, **options)
            return module
        # torch.export takes the length of a recurrent layer for a constant, and says so where it may not.
        kinds = (Dim.DYNAMIC, Dim.AUTO if exporter == "pt2" else Dim.DYNAMIC)
        shapes = {name: {axis: kinds[axis > 0] for axis in of_input} for name, of_input in axes.items()}
        if exporter == "dynamo":
            options = {"dynamic_shapes": shapes, "external_data": False, "verbose": False, "opset_version": opset}
            with torch.no_grad():  # else it fails itself on the attention of T5 and BEiT
                torch.onnx.export(module, (), path, kwargs=inputs, dynamo=True, **options)
        else:
            torch.export.save(torch.export.export(module, (), kwargs=inputs, dynamic_shapes=shapes), path)
    return module


def _hugging(model: str, config: str, inputs: Mapping[str, Input], **settings: Any) -> Architecture:
    """A model of transformers, which is slow to import: not before it is needed."""

    def make() -> nn.Module:
        import transformers

        module: nn.Module = getattr(transformers, model)(getattr(transformers, config)(**settings))
        return module

    return Architecture(make, inputs)


_PIXELS = {"pixel_values": Input((3, 32, 32))}
_TEXT = {"input_ids": Input((LENGTH,), "tokens"), "attention_mask": Input((LENGTH,), "mask")}
_BERT_TEXT = {**_TEXT, "token_type_ids": Input((LENGTH,), "tokens", 2)}
_IMAGE = {"image": Input((3, 32, 32))}
#: Wide enough for weights to be random as in a trained network, where 0.02 belongs to 768.
_INIT: Final = {"initializer_range": 0.2}
_WIDTHS: Final = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, **_INIT,
}  # fmt: skip
_PATCHES: Final = {"image_size": 32, "patch_size": 8, **_WIDTHS}
_DEEPER: Final = {"num_hidden_layers": 3}
_WORDS: Final = {"vocab_size": 30, "max_position_embeddings": 40, **_WIDTHS}

HUGGING: Final = {
    "vit": _hugging("ViTForImageClassification", "ViTConfig", _PIXELS, **_PATCHES | _DEEPER, num_labels=10),
    "beit": _hugging(
        "BeitForImageClassification", "BeitConfig", _PIXELS, **_PATCHES, use_relative_position_bias=True, num_labels=10
    ),
    "dinov2": _hugging(
        "Dinov2Model", "Dinov2Config", _PIXELS, image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, mlp_ratio=2, **_INIT,
    ),
    "clip_vision": _hugging("CLIPVisionModel", "CLIPVisionConfig", _PIXELS, **_PATCHES),
    "swin": _hugging(
        "SwinForImageClassification", "SwinConfig", _PIXELS, image_size=32, patch_size=2, embed_dim=12, depths=[2, 1],
        num_heads=[2, 4], window_size=4, num_labels=10, **_INIT,
    ),
    "hf_resnet": _hugging(
        "ResNetForImageClassification", "ResNetConfig", _PIXELS, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 2],
        num_labels=10,
    ),
    "convnextv2": _hugging(
        "ConvNextV2Model", "ConvNextV2Config", _PIXELS, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, **_INIT,
    ),
    "segformer": _hugging(
        "SegformerForSemanticSegmentation", "SegformerConfig", {"pixel_values": Input((3, 64, 64))},
        hidden_sizes=[8, 16], depths=[1, 1], num_encoder_blocks=2, sr_ratios=[4, 2], patch_sizes=[7, 3], strides=[4, 2],
        num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=4, **_INIT,
    ),
    "bert": _hugging("BertForQuestionAnswering", "BertConfig", _BERT_TEXT, **_WORDS | _DEEPER),
    "roberta": _hugging("RobertaForSequenceClassification", "RobertaConfig", _TEXT, **_WORDS),
    "distilbert": _hugging(
        "DistilBertForTokenClassification", "DistilBertConfig", _TEXT, vocab_size=30, max_position_embeddings=40,
        dim=16, n_layers=1, n_heads=2, hidden_dim=32, num_labels=5, **_INIT,
    ),
    "mpnet": _hugging("MPNetModel", "MPNetConfig", _TEXT, **_WORDS),
    "t5_encoder": _hugging(
        "T5EncoderModel", "T5Config", _TEXT, vocab_size=30, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
    ),
}  # fmt: skip

WRITTEN_OUT: Final = {
    "plain": Architecture(written_out.Plain, _IMAGE),
    "vgg": Architecture(written_out.Vgg, _IMAGE),
    "resnet18": Architecture(lambda: ResNet18(width=8), _IMAGE),
    "densenet": Architecture(written_out.DenseNet, _IMAGE),
    "mobilenet": Architecture(MobileNet, {"image": Input((3, 16, 16))}),
    "shufflenet": Architecture(written_out.ShuffleNet, _IMAGE),
    "inception": Architecture(written_out.Inception, _IMAGE),
    "unet": Architecture(written_out.UNet, _IMAGE),
    "two_tasks": Architecture(written_out.TwoTasks, _IMAGE),
    "transformer": Architecture(Transformer, {"image": Input((3, 16, 16))}),
    "masked_encoder": Architecture(
        written_out.MaskedEncoder, {"sequence": Input((LENGTH, 16)), "padding": Input((LENGTH,), "padding")}
    ),
    "causal": Architecture(
        written_out.Causal, {"tokens": Input((LENGTH,), "tokens"), "valid": Input((LENGTH,), "valid")}
    ),
    "lstm": Architecture(written_out.Lstm, {"tokens": Input((LENGTH,), "tokens")}),
    "gru": Architecture(written_out.Gru, {"signal": Input((LENGTH, 6)), "state": Input((16,))}),
    "crnn": Architecture(written_out.Crnn, {"image": Input((1, 16, 24))}),
    "wavenet": Architecture(written_out.WaveNet, {"signal": Input((2, LENGTH))}),
    "tabular": Architecture(written_out.Tabular, {"numbers": Input((7,)), "categories": Input((3,), "tokens", 5)}),
    "video": Architecture(written_out.Video, {"clip": Input((3, 4, 16, 16))}),
}

#: Large enough for a file's size to be that of its weights.
LARGE: Final = {
    "resnet18": Architecture(lambda: ResNet18(width=64), _IMAGE),
    "vit": _hugging(
        "ViTForImageClassification", "ViTConfig", _PIXELS, image_size=32, patch_size=8, hidden_size=320,
        num_hidden_layers=3, num_attention_heads=4, intermediate_size=1280, num_labels=10,
    ),
    "lstm": Architecture(lambda: written_out.Lstm(50, 64, 320), {"tokens": Input((LENGTH,), "tokens")}),
}  # fmt: skip

ARCHITECTURES: Final = {**HUGGING, **WRITTEN_OUT}
