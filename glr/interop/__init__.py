"""The networks in other tools: to Keras and PyTorch, and from them."""

from glr.interop.frameworks import from_keras, from_torch, to_keras, to_torch

__all__ = ["from_keras", "from_torch", "to_keras", "to_torch"]
