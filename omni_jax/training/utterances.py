"""What an assistant says, as rows of steps of the Talker (see batch.TalkerRows).

Inference makes the same steps one by one: see inference.lockstep, and the facts of the layout there.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.data.batch import Example, Turn
from omni_jax.data.speech import check_codes
from omni_jax.errors import OmniError, require
from omni_jax.training.batch import TalkerRows
from omni_jax.weights.speakers import Speaker


@dataclasses.dataclass(frozen=True)
class Utterance:
    """start, end: the turn's text in the conversation's tokens; codes int32 [n]; voice: the speaker's first token;
    ended: whether an end mark follows the codes, or they were cut off; given int32 [n]: the codes as the Talker is told
    them, where these are not the same (see `masked`)."""

    start: int
    end: int
    codes: np.ndarray
    voice: int
    ended: bool = True
    given: np.ndarray | None = None

    @property
    def steps(self) -> int:
        """All that was read before it, the voice, a step for each code and one for the end."""
        return self.start + 2 + len(self.codes)


def utterances(example: Example, config: OmniConfig, speakers: Mapping[str, Speaker], apart: float, pairs: bool,
               rng: np.random.Generator) -> list[Utterance]:
    """Those of a conversation's spoken turns; with `pairs` two for each turn, the better and the worse.

    apart: share of the turns whose speaker is drawn apart from what is said, though one is named; so no voice is tied
    to a rare pattern of text (paper, section 4.3). Raises OmniError.
    """
    spoken = [turn for turn in example.turns if turn.sound]
    require(bool(spoken), "conversation", 'has no spoken turn; give an assistant\'s turn {"type": "audio"} with codes')
    found = []
    for turn in spoken:
        voice = _voice(turn.sound, speakers, apart, rng).bos_token
        # Told of pairs alone: what is better needs something that is worse.
        keys = ("codes", "worse") if pairs else ("codes",)
        require(turn.end > turn.start, "conversation", "a spoken turn has no text; write what is said")
        found += [Utterance(turn.start, turn.end, _codes(turn, key, config), voice,
                            not (key == "worse" and turn.sound.get("worse_cut_off", False))) for key in keys]
    return found


def masked(said: Utterance, share: float, config: OmniConfig, rng: np.random.Generator) -> Utterance:
    """With this share of the codes that are given, drawn one by one, masked, though all are learnt. Few recordings can
    be told by their codes alone, and a Talker that tells them so does not learn to read; so some are kept from it."""
    drawn = rng.random(len(said.codes)) < share
    return dataclasses.replace(said, given=np.where(drawn, config.talker_config.tts_codec_mask_token_id, said.codes))


def _voice(sound: Mapping[str, Any], speakers: Mapping[str, Speaker], apart: float,
           rng: np.random.Generator) -> Speaker:
    name, known = sound.get("speaker"), list(speakers)
    require(bool(known), "model", "has no speakers; add them with tools.make_speaker or tools.speakers")
    if name is not None and name not in speakers:
        raise OmniError(f"speaker {name!r} is unknown; the checkpoint has {', '.join(known)}")
    drawn = name is None or rng.random() < apart
    return speakers[known[rng.integers(len(known))] if drawn else name]


def _codes(turn: Turn, key: str, config: OmniConfig) -> np.ndarray:
    given, where = turn.sound.get(key), f"sound {turn.sound.get('audio')}"
    tool = {"codes": "tools.make_codes", "worse": "tools.make_preferences"}[key]
    require(given is not None, where, f"has no {key}; make them with {tool}")
    return check_codes(given, config.token2wav_config.dit_config.codec_rows, where)


class _Steps(NamedTuple):
    """The steps of one utterance: TalkerRows' fields, int32 [steps] each."""

    source: np.ndarray
    text: np.ndarray
    code: np.ndarray
    place: np.ndarray
    beyond: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def _steps(said: Utterance, first: int, config: OmniConfig) -> _Steps:
    """first: where the conversation begins in its row of text."""
    talker, n, read, words = config.talker_config, len(said.codes), said.start, said.end - said.start
    none, after = np.full(n + 1, -1), np.arange(n + 1)
    source = np.where(after < words, first + read + after, -1)
    text = np.select([after < words, after == words], [none, none * 0 + talker.tts_text_end_token_id],
                     talker.tts_text_pad_token_id)
    given = said.codes if said.given is None else said.given
    join = lambda before, voice, speech: np.concatenate([before, [voice], speech]).astype(np.int32)
    tokens, unread = first + np.arange(read), np.full(read, -1)
    return _Steps(
        source=join(tokens, -1, source), text=join(unread, said.voice, text),
        code=join(unread, talker.tts_codec_pad_token_id, [talker.tts_codec_start_token_id, *given]),
        # The voice and the first code are numbered as the text after what was read; later codes from the greatest on.
        place=join(tokens, first + read, np.full(n + 1, first + read + 1)), beyond=join(unread * 0, 0, after),
        targets=join(unread * 0, 0, [*said.codes, talker.tts_codec_end_token_id]),
        weights=join(unread * 0, 0, np.append(np.ones(n), said.ended)))


def talker_rows(rows: Sequence[Sequence[tuple[int, Sequence[Utterance]]]], length: int,
                config: OmniConfig) -> TalkerRows:
    """rows: of each row its conversations, as (where its tokens begin, its utterances); they must fit in `length`."""
    padding = _Steps(-1, -1, -1, 0, 0, 0, 0)
    arrays = {name: np.full((len(rows), length), value, np.int32) for name, value in padding._asdict().items()}
    segments = np.zeros((len(rows), length), np.int32)
    for b, row in enumerate(rows):
        at = 0
        for number, (first, said) in enumerate(((first, u) for first, own in row for u in own), 1):
            steps = _steps(said, first, config)
            own = slice(at, at := at + said.steps)
            segments[b, own] = number
            for name, values in steps._asdict().items():
                arrays[name][b, own] = values
    return TalkerRows(segments, **{**arrays, "weights": arrays["weights"].astype(np.float32)})
