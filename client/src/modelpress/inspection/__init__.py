"""What the service will say to a file, told from the structure of the file alone: no network, no weights, no torch."""

from modelpress.inspection.check import check
from modelpress.inspection.report import CheckReport, Operator

__all__ = ["CheckReport", "Operator", "check"]
