"""Which channels of a network can be removed together, what that would save, and their removal."""

from worker.engine.structure.analyse import analyse
from worker.engine.structure.model import Factor, Family, Keep, Place, Structure, Term, Unfit
from worker.engine.structure.remove import remove

__all__ = ["Factor", "Family", "Keep", "Place", "Structure", "Term", "Unfit", "analyse", "remove"]
