"""The DiT in small, on codes that are given.

    python -m tools.train configs/flow_smoke.py --workdir out/smoke/flow

EXPECT
"""

from configs.speech_stages import CODED, flow, smoke

config = flow(smoke("voice_model", CODED, steps=300), rate=5e-4)
