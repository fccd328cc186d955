"""Padded sizes: few of them, so that little is compiled, and close together, so that little is wasted."""

PREFILL_CHUNK = 512  # tokens that one prefill step takes; longer prompts are a whole number of such chunks
SMALLEST_PROMPT = 32


def bucket(n: int, minimum: int = 1, steps: int = 4) -> int:
    """The smallest padded size that holds `n`: powers of two subdivided in `steps` (…, 16, 20, 24, 28, 32, 40, …).

    At most 1 / steps more than n above `minimum`; never less than `minimum`, which should be in the series itself.
    """
    n = max(n, minimum, 1)
    step = max(1, (1 << (n - 1).bit_length()) // (2 * steps))
    return -(-n // step) * step


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n` (and at least 1)."""
    return 1 << (max(n, 1) - 1).bit_length()


def token_bucket(n: int) -> int:
    """Padded length of a prompt of `n` tokens: 32, 64, 128, 256, 512, then whole multiples of PREFILL_CHUNK."""
    if n > PREFILL_CHUNK:
        return -(-n // PREFILL_CHUNK) * PREFILL_CHUNK
    return max(SMALLEST_PROMPT, power_of_two(n))
