"""Every method's parameters, in one visible table."""

from app.recipes.methods.base import LayerFilter, Step
from app.recipes.methods.codebooks import QuantizeBinary, QuantizeCodebook, QuantizeTernary, SignStep
from app.recipes.methods.distill import Distill
from app.recipes.methods.factorize import (
    FactorizeCp,
    FactorizeStructured,
    FactorizeSvd,
    FactorizeTucker,
    RankStep,
)
from app.recipes.methods.prune_channels import PruneChannels
from app.recipes.methods.prune_weights import PruneWeights
from app.recipes.methods.quantize import (
    IntegerStep,
    QuantizeAwareTraining,
    QuantizeDynamic,
    QuantizeFloat,
    QuantizeMixed,
    QuantizeStatic,
    QuantizeWeights,
)
from app.recipes.methods.search import SearchArchitecture
from app.recipes.methods.training import Finetune, TrainedStep, TrainingStep

#: The `method` of a step -> its parameter class.
METHODS: dict[str, type[Step]] = {
    cls.name(): cls
    for cls in (
        FactorizeSvd,
        FactorizeTucker,
        FactorizeCp,
        FactorizeStructured,
        QuantizeStatic,
        QuantizeDynamic,
        QuantizeWeights,
        QuantizeMixed,
        QuantizeCodebook,
        QuantizeTernary,
        QuantizeBinary,
        QuantizeFloat,
        QuantizeAwareTraining,
        Finetune,
        Distill,
        PruneWeights,
        PruneChannels,
        SearchArchitecture,
    )
}

__all__ = [
    "METHODS",
    "Distill",
    "FactorizeCp",
    "FactorizeStructured",
    "FactorizeSvd",
    "FactorizeTucker",
    "Finetune",
    "IntegerStep",
    "LayerFilter",
    "PruneChannels",
    "PruneWeights",
    "QuantizeAwareTraining",
    "QuantizeBinary",
    "QuantizeCodebook",
    "QuantizeDynamic",
    "QuantizeFloat",
    "QuantizeMixed",
    "QuantizeStatic",
    "QuantizeTernary",
    "QuantizeWeights",
    "RankStep",
    "SearchArchitecture",
    "SignStep",
    "Step",
    "TrainedStep",
    "TrainingStep",
]
