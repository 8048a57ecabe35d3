"""Techniques, one file each."""

from collections.abc import Callable, Mapping
from typing import Final

from app.recipes import Step
from app.recipes.methods import (
    Distill,
    FactorizeCp,
    FactorizeStructured,
    FactorizeSvd,
    FactorizeTucker,
    Finetune,
    PruneChannels,
    PruneWeights,
    QuantizeAwareTraining,
    QuantizeBinary,
    QuantizeCodebook,
    QuantizeDynamic,
    QuantizeFloat,
    QuantizeMixed,
    QuantizeStatic,
    QuantizeTernary,
    QuantizeWeights,
    SearchArchitecture,
)
from worker.engine.methods.distill import distill
from worker.engine.methods.factorize_cp import factorize_cp
from worker.engine.methods.factorize_structured import factorize_structured
from worker.engine.methods.factorize_svd import factorize_svd
from worker.engine.methods.factorize_tucker import factorize_tucker
from worker.engine.methods.finetune import finetune
from worker.engine.methods.prune_channels import prune_channels
from worker.engine.methods.prune_weights import prune_weights
from worker.engine.methods.quantize_aware_training import quantize_aware_training
from worker.engine.methods.quantize_codebook import quantize_codebook
from worker.engine.methods.quantize_dynamic import quantize_dynamic
from worker.engine.methods.quantize_float import quantize_float
from worker.engine.methods.quantize_mixed import quantize_mixed
from worker.engine.methods.quantize_signs import quantize_signs
from worker.engine.methods.quantize_static import quantize_static
from worker.engine.methods.quantize_weights import quantize_weights
from worker.engine.methods.search_architecture import search_architecture
from worker.engine.state import Compressed, Context

#: Parameter class of a step -> what runs it.
METHODS: Final[Mapping[type[Step], Callable[[Compressed, Step, Context], Compressed]]] = {
    FactorizeSvd: factorize_svd,
    FactorizeTucker: factorize_tucker,
    FactorizeCp: factorize_cp,
    FactorizeStructured: factorize_structured,
    QuantizeStatic: quantize_static,
    QuantizeDynamic: quantize_dynamic,
    QuantizeCodebook: quantize_codebook,
    QuantizeTernary: quantize_signs,
    QuantizeBinary: quantize_signs,
    QuantizeFloat: quantize_float,
    QuantizeMixed: quantize_mixed,
    QuantizeWeights: quantize_weights,
    QuantizeAwareTraining: quantize_aware_training,
    Finetune: finetune,
    Distill: distill,
    PruneWeights: prune_weights,
    PruneChannels: prune_channels,
    SearchArchitecture: search_architecture,
}

__all__ = ["METHODS"]
