"""Direct preference optimization (Rafailov et al., 2023, arXiv 2305.18290, equation 7)."""

import jax
import jax.numpy as jnp


def preference_loss(policy: jax.Array, gains: jax.Array, pairs: jax.Array, beta: float) -> dict[str, jax.Array]:
    """Sums over pairs: -log sigmoid(margin), where margin = beta * (gain of the better - gain of the worse); how often
    it is positive; and log p(better), which should not fall far.

    policy, gains: float32 [B, U], log p and log p - log r of whole utterances (nats), the better and the worse of each
    pair next to each other; pairs: bool [B, U / 2], where there is one.
    """
    margin = beta * (gains[:, ::2] - gains[:, 1::2])
    total = lambda values: jnp.where(pairs, values, 0).sum()
    return {"loss": total(-jax.nn.log_sigmoid(margin)), "margin": total(margin),
            "preferred": total((margin > 0).astype(jnp.float32)), "better_log_likelihood": total(policy[:, ::2]),
            "weight": pairs.sum().astype(jnp.float32)}
