"""The configurations of Token2Wav's networks; read and written as all others, by config.py."""

import dataclasses
import math

from omni_jax.errors import require


@dataclasses.dataclass(frozen=True)
class DiTConfig:
    """Codes to mel: a diffusion transformer over blocks of `block_size` mel frames, and its ECAPA speaker encoder
    (`enc_*`). `num_embeds`: the codec table has one row more."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    ff_mult: int
    emb_dim: int
    block_size: int
    look_ahead_layers: tuple[int, ...]
    look_backward_layers: tuple[int, ...]
    repeats: int
    num_embeds: int
    mel_dim: int
    rope_theta: float
    enc_emb_dim: int
    enc_dim: int
    enc_channels: tuple[int, ...]
    enc_kernel_sizes: tuple[int, ...]
    enc_dilations: tuple[int, ...]
    enc_attention_channels: int
    enc_res2net_scale: int
    enc_se_channels: int

    def __post_init__(self):
        need = lambda condition, sentence: require(condition, "dit_config", sentence)
        need(self.head_dim % 2 == 0, "head_dim must be even (rotary pairs)")
        need(self.block_size % self.repeats == 0, "block_size must be a multiple of repeats (whole codes in a block)")
        looks = (*self.look_ahead_layers, *self.look_backward_layers)
        need(all(layer < self.num_hidden_layers for layer in looks) and len(set(looks)) == len(looks),
             "look_ahead_layers and look_backward_layers must name different layers below num_hidden_layers")
        channels = self.enc_channels
        need(len(channels) == len(self.enc_kernel_sizes) == len(self.enc_dilations) >= 3,
             "enc_channels, enc_kernel_sizes and enc_dilations must have one length, 3 or more")
        need(len(set(channels[:-1])) == 1 and sum(channels[1:-1]) == channels[-1],
             "enc_channels must be equal but for the last, which is the sum of those between the first and itself")
        need(channels[0] % self.enc_res2net_scale == 0, "enc_channels must be multiples of enc_res2net_scale")
        need(all(size % 2 for size in self.enc_kernel_sizes), "enc_kernel_sizes must be odd")

    @property
    def input_size(self) -> int:
        """Noisy mel, voice of the reference recording, code, speaker vector: what a frame's input joins."""
        return self.mel_dim + self.enc_dim + self.emb_dim + self.enc_emb_dim

    @property
    def codec_rows(self) -> int:
        """8194 in both releases: codes that the table knows."""
        return self.num_embeds + 1

    @property
    def sounds(self) -> int:
        """8192 in both releases: codes that stand for sound, the first of the table."""
        return self.codec_rows - 2


@dataclasses.dataclass(frozen=True)
class BigVGANConfig:
    """Mel to waveform: transposed convolutions, each followed by the mean of several residual blocks."""

    mel_dim: int
    upsample_initial_channel: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]

    def __post_init__(self):
        need = lambda condition, sentence: require(condition, "bigvgan_config", sentence)
        rates, kernels = self.upsample_rates, self.upsample_kernel_sizes
        need(len(rates) == len(kernels)
             and all(k >= r and (k - r) % 2 == 0 for r, k in zip(rates, kernels, strict=True)),
             "upsample_kernel_sizes must exceed upsample_rates, one by one, by an even number")
        need(self.upsample_initial_channel % 2 ** len(rates) == 0,
             "upsample_initial_channel must halve at each of upsample_rates")
        need(all(size % 2 for size in self.resblock_kernel_sizes), "resblock_kernel_sizes must be odd")
        need(len(self.resblock_dilation_sizes) == len(self.resblock_kernel_sizes)
             and all(len(sizes) == 3 for sizes in self.resblock_dilation_sizes),
             "resblock_dilation_sizes must be three for each of resblock_kernel_sizes")

    @property
    def samples_per_frame(self) -> int:
        """240 in both releases: 24,000 samples a second from 100 mel frames."""
        return math.prod(self.upsample_rates)

    def require_mel(self, mel: "MelConfig", where: str) -> None:
        """Raises OmniError unless these are mels that the network reads."""
        require(mel.hop == self.samples_per_frame and mel.bins == self.mel_dim, where,
                f"hop {mel.hop} and bins {mel.bins} must be {self.samples_per_frame} and {self.mel_dim}, as the "
                "checkpoint's vocoder has them")


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """What DiT and BigVGAN are trained to write and read: natural logarithms of Slaney mel amplitudes, as HiFi-GAN's
    and BigVGAN's. Frequencies in Hz; `n_fft` (also the Hann window's length) and `hop` in samples; `bins`: M;
    amplitudes below `floor` count as it."""

    sample_rate: int = 24000
    n_fft: int = 1024
    hop: int = 240
    bins: int = 80
    low: float = 0.0
    high: float = 12000.0
    floor: float = 1e-5

    def __post_init__(self):
        need = lambda condition, sentence: require(condition, "mel", sentence)
        need(1 <= self.hop <= self.n_fft and (self.n_fft - self.hop) % 2 == 0,
             f"n_fft {self.n_fft} must exceed hop {self.hop} by an even number")
        need(0 <= self.low < self.high <= self.sample_rate / 2,
             f"low {self.low} and high {self.high} must lie in order between 0 and half of sample_rate")
        need(self.bins >= 1 and self.floor > 0, "bins must be 1 or more, and floor above 0")

    @property
    def pad(self) -> int:
        """Samples that a stretch's first frame sees before it, and its last one after it."""
        return (self.n_fft - self.hop) // 2


@dataclasses.dataclass(frozen=True)
class CodecEncoderConfig:
    """Mel to codes: a transformer over blocks as the DiT's, which lives beside a checkpoint; no release has one.

    mel_dim, emb_dim (width of the codec table), block_size (mel frames) and repeats (mel frames of a code) are the
    DiT's. look_back, look_ahead: blocks before and after its own that a position sees, in every layer.
    """

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    intermediate_size: int
    mel_dim: int
    emb_dim: int
    block_size: int
    repeats: int
    look_back: int
    look_ahead: int
    rope_theta: float
    rms_norm_eps: float

    def __post_init__(self):
        need = lambda condition, sentence: require(condition, "codec_encoder", sentence)
        need(self.head_dim % 2 == 0, "head_dim must be even (rotary pairs)")
        need(self.block_size % self.repeats == 0, "block_size must be a multiple of repeats (whole codes in a block)")
        need(self.look_back >= 0 and self.look_ahead >= 0, "look_back and look_ahead must be 0 blocks or more")

    @property
    def codes_per_block(self) -> int:
        return self.block_size // self.repeats

    @property
    def reach(self) -> tuple[int, int]:
        """Blocks before and after its own that a code depends on."""
        return self.num_hidden_layers * self.look_back, self.num_hidden_layers * self.look_ahead


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """What `codec_encoder.json` beside a checkpoint says: the encoder's sizes, and the mels that it was trained on."""

    encoder: CodecEncoderConfig
    mel: MelConfig

    def __post_init__(self):
        require(self.encoder.mel_dim == self.mel.bins, "codec_encoder",
                f"mel_dim {self.encoder.mel_dim} of encoder and bins {self.mel.bins} of mel must be one number")


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """What judges the vocoder in training: HiFi-GAN's multi-period and UnivNet's multi-resolution discriminators.

    periods: samples that are laid side by side. period_channels: of the layers of one. resolutions: (n_fft, hop,
    window) of the spectra, in samples. spectral_channels: of the layers of one.
    """

    periods: tuple[int, ...] = (2, 3, 5, 7, 11)
    period_channels: tuple[int, ...] = (32, 128, 512, 1024, 1024)
    resolutions: tuple[tuple[int, int, int], ...] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))
    spectral_channels: int = 32

    def __post_init__(self):
        need = lambda condition, sentence: require(condition, "discriminators", sentence)
        need(min(self.periods, default=0) >= 1 and len(self.period_channels) >= 2,
             "periods must be one or more, each 1 or more, and period_channels two or more")
        need(len(self.resolutions) >= 1
             and all(1 <= hop <= window <= n_fft for n_fft, hop, window in self.resolutions),
             "resolutions must be one or more of (n_fft, hop, window), hop at most window, and window at most n_fft")


@dataclasses.dataclass(frozen=True)
class Token2WavConfig:
    """Codes to waveform."""

    dit_config: DiTConfig
    bigvgan_config: BigVGANConfig

    def __post_init__(self):
        require(self.dit_config.mel_dim == self.bigvgan_config.mel_dim, "token2wav_config",
                 f"mel_dim must be one number, not {self.dit_config.mel_dim} in dit_config and "
                 f"{self.bigvgan_config.mel_dim} in bigvgan_config")

    @property
    def samples_per_code(self) -> int:
        """480 in both releases: 50 codes a second."""
        return self.dit_config.repeats * self.bigvgan_config.samples_per_frame

    @property
    def codes_per_block(self) -> int:
        return self.dit_config.block_size // self.dit_config.repeats

    @property
    def mel(self) -> MelConfig:
        """What mels these networks take, unless a codec encoder beside the checkpoint says more."""
        return MelConfig(hop=self.bigvgan_config.samples_per_frame, bins=self.bigvgan_config.mel_dim)
