"""The one exception that users of omni_jax are meant to see."""


class OmniError(ValueError):
    """Bad input, told in one sentence that names the file, field or tensor and says what to do."""


def require(condition: bool, where: str, sentence: str) -> None:
    """Raises OmniError("where: sentence") unless `condition` holds."""
    if not condition:
        raise OmniError(f"{where}: {sentence}")
