"""How a version is computed: behind this door, ONNX Runtime, or a torch process for what it cannot compute."""

from api.serving.execution.devices import CPU, Device, own_devices, serving_devices
from api.serving.execution.runtime import Execution, Runtime
from api.serving.execution.sessions import Images

__all__ = ["CPU", "Device", "Execution", "Images", "Runtime", "own_devices", "serving_devices"]
