"""Context continuation in small: the Talker learns the codes of spoken phrases, from a random start; Thinker frozen.

    python -m tools.train configs/talker_smoke.py --workdir out/smoke/talker

EXPECT
"""

from configs.speech_stages import MORE, smoke, talker

config = talker(smoke("voice_model", **MORE), rate=2e-3)
