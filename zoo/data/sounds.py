"""Decodes recordings to mono samples at one rate, with soundfile and soxr (`pip install soundfile soxr`)."""

import importlib
import io
from typing import Any, NamedTuple

import numpy as np

from zoo.data.bad_records import BadRecord
from zoo.errors import UserError, shown
from zoo.extras import install

CHANNELS = 8  # At most, of an array: as many samples are half a millisecond.
CUT = "is cut off: it has {has} of {of} {unit}. Fetch it again."


class Sound(NamedTuple):
  """A mono recording.

  Attributes:
    samples: float32 [samples], mostly in [-1, 1].
    rate: samples per second.
    file_rate, channels: of the file.
  """

  samples: np.ndarray
  rate: int
  file_rate: int
  channels: int

  def changes(self) -> str | None:
    """Describes the conversion of the file's samples; None if there was none."""
    resampled = f"resampled from {self.file_rate:,} to {self.rate:,} Hz" if self.file_rate != self.rate else ""
    mixed = f"{self.channels} channels averaged" if self.channels > 1 else ""
    return " and ".join(filter(None, (mixed, resampled))) or None


def decode(content: Any, rate: int, what: str, *, start: float = 0.0, seconds: float | None = None) -> Sound:
  """Decodes a recording, averages its channels and resamples it.

  Args:
    content: bytes of a file: wav, flac, ogg, mp3 or another format of libsndfile.
    rate: target rate, samples per second.
    what: its name in messages.
    start, seconds: start and duration of the part to decode, in seconds; None: to the end.

  Raises:
    BadRecord: it is not such a file, is truncated or empty, or has NaN.
    UserError: soundfile, or soxr if it is needed, is not installed.
  """
  soundfile = package("soundfile")
  if not isinstance(content, bytes):
    raise BadRecord(f"{what}: the recording is {shown(content, 60)}, not the bytes of a file.")
  try:
    with soundfile.SoundFile(io.BytesIO(content)) as file:
      frames, file_rate = file.frames, file.samplerate
      _check_whole(content, frames, file.channels * _BYTES.get(file.subtype, 0), what)
      file.seek(min(round(start * file_rate), frames))
      num_frames = frames if seconds is None else round(seconds * file_rate)
      num_frames = min(num_frames, frames - file.tell())
      channels = file.read(num_frames, dtype="float32", always_2d=True)
  except (soundfile.SoundFileError, RuntimeError) as error:
    reason = getattr(error, "error_string", str(error)).rstrip(".")[:200]
    raise BadRecord(f"{what}: the recording does not decode ({reason}).") from error
  if len(channels) < num_frames:
    raise BadRecord(f"{what}: the recording {CUT.format(has=len(channels), of=num_frames, unit='samples')}")
  if not len(channels):
    raise BadRecord(f"{what}: the recording has no samples.")
  return Sound(_at_rate(channels, file_rate, rate, what), rate, file_rate, channels.shape[1])


def from_array(array: Any, array_rate: int, rate: int, what: str) -> np.ndarray:
  """Takes the mean of an array's channels and resamples it: -> float32 [samples]

  Args:
    array: numbers in [-1, 1], or int16 or int32, which are scaled to it: [samples], or with an axis of 1 to 8 channels.
    array_rate, rate: its samples a second, and those that are wanted.
    what: what a message calls it.

  Raises:
    BadRecord: it is no such array, is empty, or holds values that are no numbers.
  """
  try:
    array = np.asarray(array)
  except ValueError:  # Rows of several lengths.
    array = np.empty(())
  if array.dtype in (np.int16, np.int32):
    array = array / np.float32(2.0 ** (8 * array.dtype.itemsize - 1))
  if not np.issubdtype(array.dtype, np.floating):
    raise BadRecord(f"{what} is {shown(array, 60)}. It must be floats in [-1, 1], int16 or int32 [samples].")
  if mono := array.ndim == 1:
    array = array[:, None]
  elif array.ndim == 2 and array.shape[0] <= CHANNELS < array.shape[1]:
    array = array.T
  if array.ndim != 2 or array.shape[1] > CHANNELS or not mono and 0 < len(array) <= array.shape[1]:
    raise BadRecord(f"{what} has the shape {array.shape}. It must be [samples], or have an axis of 1 to 8 channels.")
  if not len(array):
    raise BadRecord(f"{what}: the recording has no samples.")
  if not isinstance(array_rate, int | np.integer) or isinstance(array_rate, bool) or array_rate < 1:
    raise UserError(f"rate is {shown(array_rate)}. It must be samples a second: an int above 0.")
  return _at_rate(array.astype(np.float32), array_rate, rate, what)


def _at_rate(channels: np.ndarray, has: int, wanted: int, what: str) -> np.ndarray:
  """float32 [samples, channels] -> float32 [samples]"""
  samples = channels.mean(axis=1) if channels.shape[1] > 1 else channels[:, 0]
  if not np.isfinite(samples).all():
    raise BadRecord(f"{what}: the recording contains NaN or infinite samples.")
  if has != wanted:
    samples = package("soxr").resample(samples, has, wanted, quality="HQ")
    if not len(samples):
      raise BadRecord(f"{what}: the recording has no samples at {wanted:,} Hz.")
  return np.asarray(samples, np.float32)


_BYTES = {"PCM_U8": 1, "PCM_S8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8}


def _check_whole(content: bytes, frames: int, frame_bytes: int, what: str) -> None:
  """BadRecord for truncated files, which libsndfile would read without an error."""
  if content.startswith(b"RIFF"):
    place = content.find(b"data", 12, 4096)
    size = int.from_bytes(content[place + 4 : place + 8], "little") if place >= 0 else 0
    has = len(content) - place - 8
    if 0 < size < 2**32 - 2**16 and has < size and frame_bytes:  # Programs that write to a pipe do not know the size.
      text = CUT.format(has=has // frame_bytes, of=size // frame_bytes, unit="samples")
      raise BadRecord(f"{what}: the recording {text}")
  elif content.startswith(b"OggS"):
    last = content.rfind(b"OggS")
    if len(content) > last + 5 and not content[last + 5] & 4:
      raise BadRecord(f"{what}: the recording is cut off: its last page is missing. Fetch it again.")


def package(name: str) -> Any:
  """Imports an optional package; UserError with the command to install it."""
  try:
    return importlib.import_module(name)
  except (ImportError, OSError) as error:  # OSError: soundfile without libsndfile.
    raise UserError(
      f"Recordings are read by {name}, which is not installed. Install it with: {install('audio')}."
    ) from error
