"""Where media come from: paths, `file://` and `data:` URLs, bytes and open files. Nothing is ever downloaded."""

import base64
import binascii
import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import av

from omni_jax.errors import OmniError

BAD_PACKETS = 2  # that are skipped in any file; in long ones, one in a hundred
# FFmpeg's demuxers of pictures and of text art: a file of these kinds is not a video, whatever its name says.
STILL_FORMATS = ("image2", "_pipe", "tty", "webvtt", "srt", "ass")


@dataclasses.dataclass(frozen=True)
class Source:
    """An encoded file: at `path`, or in memory as `data`. `name` is what messages call it."""

    name: str
    path: str | None = None
    data: bytes | None = None


def resolve(value: Any, where: str) -> Source | None:
    """The encoded file that `value` names or holds, or None if it is no file (an array, a PIL image, a list).

    `where` names the value if it has no name of its own. Raises OmniError if the file is missing, empty or remote.
    """
    if isinstance(value, (str, os.PathLike)):
        return _from_text(os.fspath(value), where)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _checked(Source(where, data=bytes(value)))
    if hasattr(value, "read") and not hasattr(value, "__array__"):
        return _checked(Source(str(getattr(value, "name", where)), data=value.read()))
    return None


def _from_text(text: str, where: str) -> Source:
    scheme = text.split(":", 1)[0].lower()
    if "://" in text and scheme in ("http", "https", "ftp", "rtsp", "rtmp", "s3", "gs"):
        raise OmniError(f"{text[:200]}: nothing is downloaded; save the file and give its path")
    if text.startswith("data:"):
        return _checked(Source(f"{where} (data URL)", data=_decode_data_url(text, where)))
    if text.startswith("file://"):
        plain = text[len("file://"):].removeprefix("localhost")
        text = plain if os.path.exists(plain) else unquote(plain)
    return _checked(Source(text, path=text))


def _decode_data_url(text: str, where: str) -> bytes:
    head, comma, body = text.partition(",")
    if not comma:
        raise OmniError(f"{where}: the data URL has no comma; write data:TYPE;base64,CONTENT")
    if not head.endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote(body), validate=True)
    except (binascii.Error, ValueError):
        raise OmniError(f"{where}: the data URL is not valid base64; encode the file again") from None


def _checked(source: Source) -> Source:
    if source.path is None:
        size = len(source.data)
    else:
        path = Path(source.path)
        try:
            exists, folder, size = path.exists(), path.is_dir(), path.stat().st_size if path.exists() else 0
        except (OSError, ValueError):  # a name too long or with a null byte
            exists = folder = False
        if not exists:
            raise OmniError(f"{source.name[:200]}: no such file; check the path")
        if folder:
            raise OmniError(f"{source.name}: is a directory; give a media file")
    if size == 0:
        raise OmniError(f"{source.name}: is empty (0 bytes); give a media file with content")
    return source


def open_container(source: Source, kind: str) -> av.container.InputContainer:
    """The container for demuxing; `kind` is the word for what was expected. Raises OmniError.

    Only local files may be opened, also by playlists that point elsewhere.
    """
    # "file:" keeps FFmpeg from taking a colon in the name for a protocol.
    file = io.BytesIO(source.data) if source.path is None else "file:" + os.path.abspath(source.path)
    try:
        return av.open(file, mode="r", options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError):
        raise OmniError(f"{source.name}: cannot be read as {kind}; the file is corrupt or of another type") from None


def decode_stream(container: av.container.InputContainer, stream: av.stream.Stream,
                  name: str) -> Iterator[av.frame.Frame]:
    """The frames of one stream in order. Raises OmniError if it is corrupt.

    A few packets that cannot be decoded are skipped, as players do: tags at the end of MP3 files look like that.
    """
    packets = bad = 0
    try:
        for packet in container.demux(stream):
            packets += 1
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                bad += 1
                continue
            yield from frames
    except av.error.FFmpegError as error:
        raise OmniError(f"{name}: is corrupt ({error.strerror}); convert the file again") from None
    if bad > max(BAD_PACKETS, packets // 100):
        raise OmniError(f"{name}: is corrupt ({bad} of {packets} packets cannot be decoded); convert the file again")


def check_whole(container: av.container.InputContainer, stream: av.stream.Stream, name: str) -> None:
    """Raises OmniError if an MP4 says that this stream goes on after the end of the file: nothing is cut silently."""
    entries = stream.index_entries
    if not container.format.name.startswith("mov") or not len(entries):
        return
    last = entries[len(entries) - 1]
    if last.pos + last.size > container.size:
        raise OmniError(f"{name}: breaks off, the end of its {stream.type} is missing; get the whole file")


def is_still(container: av.container.InputContainer) -> bool:
    """Whether FFmpeg took the file for a picture or for text, not for a film."""
    return any(container.format.name.endswith(name) or container.format.name.startswith(name) for name in STILL_FORMATS)
