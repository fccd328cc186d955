"""Qwen2.5-Omni in JAX."""

from omni_jax.errors import OmniError
from omni_jax.inference.chat import Chat
from omni_jax.inference.loading import load
from omni_jax.inference.omni import Omni
from omni_jax.inference.replies import AudioChunk, Reply, TextChunk

__all__ = ["AudioChunk", "Chat", "Omni", "OmniError", "Reply", "TextChunk", "load"]
