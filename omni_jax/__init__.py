"""Qwen2.5-Omni in JAX."""

from omni_jax.errors import OmniError
from omni_jax.inference.chat import Chat
from omni_jax.inference.omni import Omni, Reply, TextChunk, load

__all__ = ["Chat", "Omni", "OmniError", "Reply", "TextChunk", "load"]
