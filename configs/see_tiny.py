"""The third stage: tower and language model together learn to answer about pictures. Six examples fill a row.

    python -m tools.train configs/see_tiny.py --workdir out/tiny/see

Expect a held-out loss of 0.622 / 0.586 / 0.566 nats a token after 250 / 500 / 700 steps; 26 minutes on two cores.
(With Muon for its matrices, at five times the rate, steps 41 to 50 had 0.417 in training, where AdamW's had 0.359.)
"""

from configs.tiny_stages import SEEN, SEEN_MEDIA, tiny

config = tiny("language_model", SEEN, SEEN_MEDIA, length=336, batch_size=12, steps=700,
              **{"optimizer.rates": (("thinker/vision/*", 0.3),)})
