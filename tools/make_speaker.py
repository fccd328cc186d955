"""Makes a speaker of a few seconds of a voice, and adds it to a checkpoint's speakers.

The speaker's vector comes from the speaker encoder beside the checkpoint. Releases have none: --fit finds the vector by
gradients through the frozen DiT, for which it needs the codes of the sound, and so a codec encoder (objective distill).

Vector and reference make the timbre. How the Talker speaks hangs on the speaker's first token: give that of a speaker
it knows with --bos-token, or teach it the new one (configs/voices_7b.py).

Example:
  python -m tools.make_speaker qwen-7b ada.wav Ada
  python -m tools.make_speaker qwen-7b ada.wav Ada --bos-token 151872 --fit
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from omni_jax.config import OmniConfig
from omni_jax.data.speech import SPEECH_RATE, load_speech
from omni_jax.errors import OmniError, require
from omni_jax.inference.codec import Codec
from omni_jax.training.fit_voice import fit_speaker
from omni_jax.weights import Speaker, beside, find_speakers
from tools._cli import parser, run
from tools.speakers import new_name, replace_speakers


def main(argv: list[str] | None = None) -> dict[str, Any]:
    arguments = _parser().parse_args(argv)
    started, directory = time.perf_counter(), arguments.checkpoint
    require(directory.is_dir(), str(directory), "is not a directory; give the directory of a checkpoint")
    require(arguments.seconds > 0 and arguments.steps >= 1 and arguments.rate > 0, "--seconds, --steps, --rate",
            "must be above 0")
    config, speakers = OmniConfig.load(directory), find_speakers(directory)
    name = new_name(arguments.name, speakers)
    bos_token = _bos_token(arguments.bos_token, config, speakers)
    require(arguments.fit or beside.exists(directory, "speaker_encoder"), str(directory),
            "has no speaker encoder; give --fit, or train one (objective flow or codec)")
    wave = load_speech(arguments.sound)[:int(arguments.seconds * SPEECH_RATE)]
    codec = Codec.load(directory, arguments.mesh, needs=("codec_encoder" if arguments.fit else "speaker_encoder",))
    speaker, told = (_fitted if arguments.fit else _encoded)(codec, config, speakers, wave, bos_token, arguments)
    replace_speakers(directory, {**speakers, name: speaker})
    return {"directory": str(directory), "speaker": name, "bos_token": bos_token,
            "seconds_of_speech": round(len(wave) / SPEECH_RATE, 2), **told,
            "seconds": round(time.perf_counter() - started, 2)}


def _encoded(codec: Codec, config: OmniConfig, speakers: dict[str, Speaker], wave: np.ndarray, bos_token: int,
             arguments: argparse.Namespace) -> tuple[Speaker, dict[str, Any]]:
    return codec.speaker(wave, bos_token), {}


def _fitted(codec: Codec, config: OmniConfig, speakers: dict[str, Speaker], wave: np.ndarray, bos_token: int,
            arguments: argparse.Namespace) -> tuple[Speaker, dict[str, Any]]:
    """From the mean of the checkpoint's voices on."""
    known = [speaker.cond[0] for speaker in speakers.values()]
    start = np.mean(known, axis=0) if known else np.zeros(codec.config.dit_config.enc_emb_dim, np.float32)
    fitted = fit_speaker(str(codec.directory), config, codec.mesh, codec.mel, wave, codec.encode(wave), start,
                         arguments.steps, arguments.rate, arguments.seed, sys.stderr.isatty())
    reference = codec.log_mel(wave, len(wave) // codec.mel.hop)
    return (Speaker(bos_token, fitted.vector[None], reference[None]),
            {"loss_before": round(fitted.before, 5), "loss_after": round(fitted.after, 5)})


def _bos_token(given: int | None, config: OmniConfig, speakers: dict[str, Speaker]) -> int:
    """What the speaker's speech begins with: the token given, or the one after all that begin something. Raises
    OmniError."""
    size, talker = config.thinker_config.text_config.vocab_size, config.talker_config
    require(talker is not None, "config.json", "describes no Talker; give a whole checkpoint")
    if given is None:
        given = 1 + max(talker.tts_text_pad_token_id, talker.tts_text_end_token_id,
                        *(speaker.bos_token for speaker in speakers.values()))
    if not 0 <= given < size:
        raise OmniError(f"--bos-token: {given} is not a token of this checkpoint, which has {size:,}; give one of them")
    return given


def _parser() -> argparse.ArgumentParser:
    made = parser(__doc__)
    made.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a directory of either kind")
    made.add_argument("sound", metavar="SOUND", help="a recording of the voice")
    made.add_argument("name", metavar="NAME", help="of the speaker")
    made.add_argument("--bos-token", type=int, metavar="ID", help="that its speech begins with (the next free one)")
    made.add_argument("--seconds", type=float, default=15.0, help="of the recording that are used (15)")
    made.add_argument("--fit", action="store_true", help="find the vector by gradients")
    made.add_argument("--steps", type=int, default=200, help="of --fit (200)")
    made.add_argument("--rate", type=float, default=0.02, help="of learning, for --fit (0.02)")
    made.add_argument("--seed", type=int, default=0, help="of --fit")
    made.add_argument("--mesh", default="", help='devices, as in "data=1,model=4" (default: one)')
    return made


if __name__ == "__main__":
    run(main)
