"""The third stage: tower and language model together learn to answer about pictures. Six examples fill a row.

    python -m tools.train configs/see_tiny.py --workdir out/tiny/see

Expect a held-out loss of 0.622 / 0.586 / 0.566 nats a token after 250 / 500 / 700 steps; 26 minutes on two cores.
(With Muon at five times the rate for all of it: 0.43 in training after 50 steps, where AdamW had 0.36.)
"""

from configs.tiny_stages import SEEN, SEEN_MEDIA, tiny

config = tiny("language_model", SEEN, SEEN_MEDIA, length=336, batch_size=12, steps=700,
              **{"optimizer.rates": (("thinker/vision/*", 0.3),)})
