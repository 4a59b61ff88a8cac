"""A version's network as an ONNX graph, which is what serving computes."""

from trainer.export.agreement import Agreement, Disagreement
from trainer.export.executable import EXECUTABLE, NotExportable, write_executable

__all__ = ["EXECUTABLE", "Agreement", "Disagreement", "NotExportable", "write_executable"]
