"""How a network is computed: eager, frozen or compiled, whichever is the fastest on this machine.

Other packages import from here alone.
"""

from api.serving.execution.libraries import Compiler, Library
from api.serving.execution.plans import Make, Plan, Planner, yield_processor

__all__ = ["Compiler", "Library", "Make", "Plan", "Planner", "yield_processor"]
