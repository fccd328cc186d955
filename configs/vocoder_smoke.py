"""BigVGAN in small, against small discriminators.

    python -m tools.train configs/vocoder_smoke.py --workdir out/smoke/vocoder

EXPECT
"""

from configs.speech_stages import JUDGES, smoke, vocoder

config = vocoder(smoke("codec_model", batch_size=4, steps=800, **{"speech.discriminators": JUDGES}), rate=1e-3)
