"""Every method's parameters, in one visible table."""

from app.recipes.methods.base import LayerFilter, Step
from app.recipes.methods.factorize import (
    FactorizeCp,
    FactorizeStructured,
    FactorizeSvd,
    FactorizeTucker,
    RankStep,
)
from app.recipes.methods.quantize import (
    IntegerStep,
    QuantizeAwareTraining,
    QuantizeBinary,
    QuantizeCodebook,
    QuantizeDynamic,
    QuantizeFloat,
    QuantizeMixed,
    QuantizeStatic,
    QuantizeTernary,
    QuantizeWeights,
    SignStep,
)
from app.recipes.methods.training import TrainedStep

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
    )
}

__all__ = [
    "METHODS",
    "FactorizeCp",
    "FactorizeStructured",
    "FactorizeSvd",
    "FactorizeTucker",
    "IntegerStep",
    "LayerFilter",
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
    "SignStep",
    "Step",
    "TrainedStep",
]
