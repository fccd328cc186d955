"""The work of the speaking networks, counted by hand as in tools/_measure.py: matrix products, attention and dense
convolutions (the resampling filters of BigVGAN's activations, a few numbers a sample, are left out)."""

from omni_jax.config import BigVGANConfig, DiTConfig, TalkerConfig, Token2WavConfig
from omni_jax.models.dit import EVALUATIONS
from tools import _measure


def talker_bytes(config: TalkerConfig, length: int) -> int:
    """Float32 bytes that a step must read: projection, layers and head once, and the cache of `length` positions."""
    return _measure.decode_bytes(config, length) + _measure.FLOAT32 * config.embedding_size * config.hidden_size


def dit_flops(config: DiTConfig, blocks: int) -> int:
    """One guided evaluation, voice and codes given: mel in (alike in both halves), the layers, mel out."""
    D, T, heads = config.hidden_size, config.block_size, config.num_attention_heads * config.head_dim
    looking = len(config.look_backward_layers) + len(config.look_ahead_layers)
    looks = T**2 * (config.num_hidden_layers * blocks + looking * (blocks - 1))
    layers = config.num_hidden_layers * (4 * D * heads + 2 * D * config.ff_mult * D)
    mel = config.mel_dim * D
    return 2 * blocks * T * (mel + 2 * (layers + mel)) + 2 * 2 * 2 * heads * looks


def bigvgan_flops(config: BigVGANConfig, frames: int) -> int:
    """From mel to samples."""
    C, length = config.upsample_initial_channel, frames
    work = 7 * config.mel_dim * C * length
    for rate, taps in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        work += taps * C * (C // 2) * length
        C, length = C // 2, length * rate
        work += 6 * sum(config.resblock_kernel_sizes) * C**2 * length
    return 2 * (work + 7 * C * length)


def ecapa_flops(config: DiTConfig, frames: int) -> int:
    """A recording through all convolutions; those after the statistics see one frame."""
    C, joined, attention = config.enc_channels[0], config.enc_channels[-1], config.enc_attention_channels
    part = C // config.enc_res2net_scale
    taps = config.enc_kernel_sizes
    work = frames * taps[0] * config.mel_dim * C
    for size in taps[1:-1]:
        work += frames * (2 * C**2 + (config.enc_res2net_scale - 1) * size * part**2) + 2 * C * config.enc_se_channels
    work += frames * (taps[-1] * joined**2 + 4 * joined * attention)
    return 2 * (work + 2 * joined * config.enc_dim)


def token2wav_flops(config: Token2WavConfig, blocks: int) -> int:
    """Codes to sound by the whole-clip solve, the voice given."""
    dit = config.dit_config
    codes = 2 * 2 * blocks * config.codes_per_block * dit.emb_dim * dit.hidden_size
    return codes + EVALUATIONS * dit_flops(dit, blocks) + bigvgan_flops(config.bigvgan_config, blocks * dit.block_size)
