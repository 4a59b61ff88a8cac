"""A version's network as an ONNX graph, which is what serving computes; that graph in int8; a program of torch."""

from trainer.export.agreement import Agreement, Disagreement
from trainer.export.comparison import Comparison, compare
from trainer.export.executable import NotExportable, headline, write_executable
from trainer.export.program import write_program
from trainer.export.quantised import quantise

__all__ = [
    "Agreement",
    "Comparison",
    "Disagreement",
    "NotExportable",
    "compare",
    "headline",
    "quantise",
    "write_executable",
    "write_program",
]
