"""The DiT in small, on codes that are given.

    python -m tools.train configs/flow_smoke.py --workdir out/smoke/flow

Expect a held-out loss of 0.577 after 50 steps and 0.549 after 200, beyond what the codec stage left; two minutes.
"""

from configs.speech_stages import CODED, flow, smoke

config = flow(smoke("voice_model", CODED, steps=200, eval_every=50), rate=5e-4)
