"""A version's network as an ONNX graph, which is what serving computes."""

from trainer.export.agreement import Agreement, Disagreement
from trainer.export.executable import NotExportable, write_executable

__all__ = ["Agreement", "Disagreement", "NotExportable", "write_executable"]
