"""Whisper's log-mel spectrograms, with a frame every 10 ms, in numpy.

https://arxiv.org/abs/2212.04356, section 2.2. Code: https://github.com/openai/whisper, audio.py.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.convert.rules.options import Options
from zoo.errors import UserError, shown

LOUDEST = 2**20  # Samples are in [-1, 1].
MOST = 2**26  # Maximum number of values in the frames of one sound: half a GB.
CHANNELS = 8  # Fewer samples are not a sound: 8 are half a millisecond.


class LogMel(NamedTuple):
  """Feature extractor: sounds -> {"features": float32 [batch, frames, bands]}, padded with silence.

  Args:
    bands: mel bands up to 8 kHz.
    rate: samples per second.
    hop: samples from one frame to the next.
    window: samples per frame.
    seconds: length of the model's input.
    silence: the value of silence.
  """

  bands: int
  rate: int
  hop: int
  window: int
  seconds: int
  silence: float

  @classmethod
  def from_options(cls, options: Options) -> "LogMel":
    """From the entries of a preprocessor_config.json."""
    names = ("feature_size", "sampling_rate", "hop_length", "n_fft", "chunk_length")
    numbers = [options.take(name, default, int) for name, default in zip(names, (80, 16000, 160, 400, 30))]
    for name, number in zip(names, numbers):
      if not 0 < number < 2**20:
        raise options.refusal(name, number, ["a number above 0"])
    options.must_be("dither", 0.0, 0)
    options.must_be("padding_side", "right")
    options.must_be("return_attention_mask", False, True)  # Not needed: padding is silence.
    options.must_be("do_normalize", None, False)
    # Derived: the filters, and sizes that follow from others.
    options.ignore("mel_filters", "n_samples", "nb_max_frames", "feature_extractor_type", "processor_class")
    silence = float(options.take("padding_value", 0.0))
    if abs(silence) > LOUDEST:
      raise options.refusal("padding_value", silence, ["a sample, near 0"])
    options.done()
    processor = cls(*numbers, silence)
    samples, frames = processor.seconds * processor.rate, processor.seconds * processor.rate // processor.hop
    for name, number in (("hop_length", processor.hop), ("n_fft", processor.window)):
      if number > samples:
        raise UserError(f"{options.where}: {name} is {number}, the sounds have {samples} samples. Make it smaller.")
    if frames * max(processor.window, processor.bands) > MOST:
      raise UserError(
        f"{options.where}: {frames} frames of n_fft {processor.window} samples and feature_size {processor.bands} "
        "bands exceed memory. Whisper has 3000, 400 and 80: make hop_length larger, or another smaller."
      )
    return processor

  def __call__(self, sounds: Any, *, rate: int | None = None) -> dict[str, np.ndarray]:
    """Features of one sound or several, mono samples [samples] in [-1, 1]. `rate`: samples per second, to be checked.

    Raises:
      UserError: another rate, not numbers, or several channels, [samples, channels], which would count as that many
        sounds.
    """
    if rate is not None and rate != self.rate:
      raise UserError(f"The sampling rate is {rate} Hz, the model takes {self.rate} Hz. Resample the sound.")
    several = isinstance(sounds, Sequence) and len(sounds) > 0 and np.ndim(sounds[0]) > 0 or np.ndim(sounds) == 2
    shape = np.shape(sounds) if several and len({np.shape(sound) for sound in sounds}) == 1 else ()
    if len(shape) == 2 and shape[1] <= CHANNELS and shape[1] < shape[0]:
      raise UserError(
        f"The sounds have the shape {shape}, i.e. {shape[1]} channel(s). Give one channel, sound[:, 0], "
        "or their mean, sound.mean(axis=1)."
      )
    return {"features": np.stack([self._features(sound) for sound in (sounds if several else [sounds])])}

  def _features(self, sound: Any) -> np.ndarray:
    try:
      sound = np.asarray(sound, np.float32)
    except (TypeError, ValueError):
      raise UserError(
        f"A sound must be a numeric array [samples] of one channel at {self.rate} Hz, not {shown(sound)}. Read files "
        "with a library, e.g. soundfile."
      ) from None
    if sound.ndim != 1:
      raise UserError(f"A sound has the shape {sound.shape}. It must be one channel: [samples].")
    padded = np.full(self.seconds * self.rate, self.silence, np.float32)
    padded[: len(sound)] = sound[: len(padded)]
    around = self.window // 2
    padded = np.pad(padded, (around, around), mode="reflect").astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(padded, self.window)[:: self.hop][:-1]
    hann = np.hanning(self.window + 1)[:-1]
    power = np.abs(np.fft.rfft(frames * hann).astype(np.complex64), dtype=np.float64) ** 2  # [frames, frequencies]
    loud = np.log10(np.maximum(1e-10, power @ mel_filters(self.window // 2 + 1, self.bands, self.rate)))
    loud = loud.astype(np.float32)
    return (np.maximum(loud, loud.max() - 8) + 4) / 4


def mel_filters(frequencies: int, bands: int, rate: int) -> np.ndarray:
  """Mel filter bank [frequencies, bands]: equal-area triangles on Slaney's mel scale, linear to 1 kHz."""

  step = 27 / np.log(6.4)  # Bands for a factor of e, above 1 kHz, which is band 15.
  edges = np.linspace(0, 15 + np.log(8000 / 1000) * step, bands + 2)
  hertz = np.where(edges < 15, 200 * edges / 3, 1000 * np.exp((edges - 15) / step))
  rise = np.linspace(0, rate // 2, frequencies)[:, None] - hertz[None]
  up, down = rise[:, :-2] / np.diff(hertz)[:-1], -rise[:, 2:] / np.diff(hertz)[1:]
  return np.maximum(0, np.minimum(up, down)) * (2 / (hertz[2:] - hertz[:-2]))
