"""Small runs of the stages that train the voice, on made sounds."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import soundfile

from omni_jax.config import OmniConfig
from omni_jax.training.config import DataConfig, DiscriminatorConfig, OptimizerConfig, Source, SpeechConfig, TrainConfig

WORDS = ["one", "two", "three", "four", "five", "six"]
TRAIN = {"talker": ("talker/*",), "preference": ("talker/*",), "flow": ("token2wav/dit/*", "speaker_encoder/*"),
         "codec": ("codec_encoder/*", "speaker_encoder/*", "token2wav/dit/*"), "distill": ("codec_encoder/*",),
         "encode": ("codec_encoder/*",),
         "vocoder": ("token2wav/bigvgan/*", "discriminators/*")}
JUDGES = DiscriminatorConfig((2, 3), (4, 6), ((64, 20, 50),), 3)


def write_manifest(directory: Path, config: OmniConfig, count: int = 12) -> Path:
    """Words as chords, with as many codes as their sound has, and worse ones."""
    rng, speakers = np.random.default_rng(0), ("Chelsie", "Ethan")
    rate, most = config.token2wav_config.samples_per_code, config.token2wav_config.dit_config.sounds
    lines = []
    for i in range(count):
        n, word = int(rng.integers(160, 240)), WORDS[i % len(WORDS)]
        t = np.arange(n * rate) / 24000
        wave = 0.1 * sum(np.sin(2 * np.pi * f * t) for f in 150 * (1 + i % 6) * np.arange(1, 4))
        soundfile.write(directory / f"{i}.wav", (wave * (1 + 0.1 * rng.normal(size=len(t)))).astype(np.float32), 24000)
        code = lambda k, i=i, n=n: ((np.arange(n) // 16 + i % 6 * k) % most).tolist()
        sound = {"type": "audio", "audio": f"{i}.wav", "speaker": speakers[i % 2], "codes": code(3), "worse": code(5)}
        lines.append({"messages": [{"role": "user", "content": f"Say {word}."},
                                   {"role": "assistant", "content": [{"type": "text", "text": word}, sound]}]})
    path = directory / "speech.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def speech_run(objective: str, checkpoint: Path, manifest: Path, **fields) -> TrainConfig:
    config = OmniConfig.load(checkpoint).token2wav_config
    mel = dataclasses.replace(SpeechConfig().mel, n_fft=2 * config.bigvgan_config.samples_per_frame,
                              hop=config.bigvgan_config.samples_per_frame, bins=config.dit_config.mel_dim)
    speech = SpeechConfig(clip=3, reference=2, encoder_width=64, encoder_layers=2, discriminators=JUDGES, mel=mel)
    source = (Source(str(manifest)),)
    data = DataConfig(source, source, length=160, speech_length=800, window=8)
    optimizer = OptimizerConfig(learning_rate=0.05, schedule="constant", eps=1.0)
    return TrainConfig(str(checkpoint), data, objective, train=TRAIN[objective], optimizer=optimizer, steps=4,
                       batch_size=4, dtype="float32", mesh="", remat="none", eval_every=0, checkpoint_every=0,
                       average=0.9, speech=dataclasses.replace(speech, **fields))
