"""Turns that continue the cache give what reading the whole conversation again would give."""

import dataclasses
import itertools

import numpy as np
import pytest

import omni_jax
from omni_jax import OmniError
from omni_jax.data.batch import Prompt
from tests.inference.test_generate import IMAGE, SOUND

LOOK = [{"role": "user", "content": [IMAGE, "Look."]}]
HEAR = [{"role": "user", "content": [SOUND, "Now hear."]}]


def joined(first: Prompt, reply: list[int], second: Prompt) -> Prompt:
    """Both turns and the reply between them as one prompt."""
    offset = len(first.token_ids) + len(reply)
    moved = lambda items: tuple(dataclasses.replace(item, positions=item.positions + offset) for item in items)
    return Prompt(np.concatenate([first.token_ids, reply, second.token_ids]).astype(np.int32),
                  first.clips + moved(second.clips), first.pictures + moved(second.pictures), ())


def with_ends(omni, *ends, **limits):
    text = dataclasses.replace(omni.config.thinker_config.text_config, **limits)
    config = dataclasses.replace(omni.config, thinker_config=dataclasses.replace(omni.config.thinker_config,
                                                                                 text_config=text))
    processor = type(omni.processor)(omni.processor.tokenizer, config)
    return omni_jax.Omni(config, dataclasses.replace(omni.network, ends=ends), processor, omni.sampling)


@pytest.mark.parametrize("ending", ["by itself", "cut off", "left early"])
def test_a_second_turn_equals_reading_everything(omni, ending):
    if ending == "by itself":  # an end token that this random checkpoint draws soon
        omni = with_ends(omni, omni.generate(LOOK, max_new_tokens=9).token_ids[-1])
    chat = omni.chat(max_new_tokens=9)
    if ending == "left early":
        pieces = chat.stream(*LOOK)
        first = [token for piece in itertools.islice(pieces, 3) for token in piece.token_ids]
        pieces.close()
        first = chat._session.replies(omni.network.ends)[0]
    else:
        first = chat.send(*LOOK).token_ids
    assert len(first) == {"by itself": 8, "cut off": 9}.get(ending, len(first))
    used = int(chat._session.cache.used)
    assert used == len(omni.prompt(LOOK).token_ids) + len(first) - (ending == "cut off")
    chat.options = dataclasses.replace(chat.options, max_new_tokens=1)
    chat.send(*HEAR)
    everything = joined(omni.prompt(LOOK), first, omni.processor.next_prompt(HEAR))
    np.testing.assert_allclose(chat._session.state.logits, omni.prompt_logits(everything, last=1), atol=2e-5)
    assert int(chat._session.cache.used) == len(everything.token_ids), "padding or history was kept or read again"
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2


def test_streamed_turns_equal_sent_ones(omni):
    sent, streamed = (omni.chat(max_new_tokens=8, temperature=1.0, seed=5) for _ in range(2))
    texts = ("One.", "Two, which is somewhat longer.", "Three?")
    for text in texts:
        chunks = list(streamed.stream(text))
        assert "".join(chunk.text for chunk in chunks) == sent.send(text).text
    assert sent.messages == streamed.messages
    first = omni.generate([{"role": "user", "content": texts[0]}], max_new_tokens=8, temperature=1.0, seed=5)
    assert sent.messages[1]["content"] == first.text


BAD = [{"max_new_tokens": "3"}, {"max_new_tokens": 0}, {"seed": None}, {"top_k": -1}]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_bad_options_are_named_at_once(omni, bad):
    with pytest.raises(OmniError, match=f"{next(iter(bad))} is .*; it must be"):
        omni.chat(**bad)


def test_turns_draw_anew(omni):
    chat = omni.chat(max_new_tokens=12, temperature=50.0, seed=3)
    assert len({tuple(chat.send("go").token_ids) for _ in range(3)}) == 3


def test_a_stream_closed_late_changes_nothing(omni):
    chat = omni.chat(max_new_tokens=12)
    late = chat.stream("A")
    next(late)
    reply = chat.send("B").text
    late.close()
    assert chat.messages[-1] == {"role": "assistant", "content": reply}
    assert chat.send("C").token_ids


def test_a_full_context_ends_a_chat_in_one_sentence(omni):
    chat = with_ends(omni, max_position_embeddings=160).chat(max_new_tokens=30)
    with pytest.raises(OmniError, match="that the context of 160 leaves beside"):
        for _ in range(9):
            chat.send("Some more words.")
    assert len(chat.messages) >= 4 and chat.messages[-1]["role"] == "assistant"
