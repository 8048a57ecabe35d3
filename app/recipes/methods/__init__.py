"""Every method's parameters, in one visible table."""

from app.recipes.methods.base import LayerFilter, Step
from app.recipes.methods.quantize import QuantizeDynamic, QuantizeStatic

#: The `method` of a step -> its parameter class.
METHODS: dict[str, type[Step]] = {cls.name(): cls for cls in (QuantizeStatic, QuantizeDynamic)}

__all__ = ["METHODS", "LayerFilter", "QuantizeDynamic", "QuantizeStatic", "Step"]
