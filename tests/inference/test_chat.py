"""Turns that continue the cache give what reading the whole conversation again would give."""

import dataclasses

import numpy as np
import pytest

import omni_jax
from omni_jax.data.batch import Prompt
from tests.inference.test_generate import IMAGE, SOUND


def joined(first: Prompt, reply: list[int], second: Prompt) -> Prompt:
    """Both turns and the reply between them as one prompt."""
    offset = len(first.token_ids) + len(reply)
    moved = lambda items: tuple(dataclasses.replace(item, positions=item.positions + offset) for item in items)
    return Prompt(np.concatenate([first.token_ids, reply, second.token_ids]).astype(np.int32),
                  first.clips + moved(second.clips), first.pictures + moved(second.pictures), ())


@pytest.mark.parametrize("ended", [True, False], ids=["ended by itself", "cut off"])
def test_a_second_turn_equals_reading_everything(omni, ended):
    if ended:  # an end token that this random checkpoint draws soon
        token = omni.generate([{"role": "user", "content": [IMAGE, "Look."]}], max_new_tokens=9).token_ids[-1]
        network = dataclasses.replace(omni.network, ends=(token,))
        omni = omni_jax.Omni(omni.config, network, omni.processor, omni.sampling)
    chat = omni.chat(max_new_tokens=9)
    turns = [[{"role": "user", "content": [IMAGE, "Look."]}], [{"role": "user", "content": [SOUND, "Now hear."]}]]
    first = chat.send(*turns[0])
    used = int(chat._session.cache.used)
    second = chat.send(*turns[1])
    everything = joined(omni.prompt(turns[0]), first.token_ids, omni.processor.next_prompt(turns[1]))
    drawn = [int(np.argmax(omni.prompt_logits(everything, last=1)))]
    assert second.token_ids[:1] == [token for token in drawn if token not in omni.network.ends][:1]
    assert int(chat._session.cache.used) - used < len(everything.token_ids), "the history was read again"
    assert [message["role"] for message in chat.messages] == ["user", "assistant"] * 2
    assert chat.messages[1]["content"] == first.text


def test_streamed_turns_equal_sent_ones(omni):
    sent, streamed = omni.chat(max_new_tokens=8), omni.chat(max_new_tokens=8)
    for text in ("One.", "Two, which is somewhat longer.", "Three?"):
        chunks = list(streamed.stream(text))
        assert "".join(chunk.text for chunk in chunks) == sent.send(text).text
    assert sent.messages == streamed.messages


def test_a_stream_left_early_can_be_answered(omni):
    chat = omni.chat(max_new_tokens=20)
    for i, _ in enumerate(chat.stream("Talk.")):
        if i == 3:
            break
    assert chat.send("Go on.").token_ids and len(chat.messages) == 4
