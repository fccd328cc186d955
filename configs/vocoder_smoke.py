"""BigVGAN in small, against small discriminators.

    python -m tools.train configs/vocoder_smoke.py --workdir out/smoke/vocoder

Expect a held-out distance of log mels of 0.38 after 100 steps and 0.21 after 800; six minutes on two cores.
"""

from configs.speech_stages import JUDGES, smoke, vocoder

config = vocoder(smoke("codec_model", batch_size=4, steps=800, **{"speech.discriminators": JUDGES}), rate=1e-3)
