"""Transcription: recordings of any length become texts.

transcribe(source, recordings)    texts; `transcriber` loads the model once for many calls
zoo.transcribe.windows            a recording in windows that overlap
zoo.transcribe.merging            what the model wrote for each window, as one text
"""

from zoo.transcribe.transcribing import Transcriber, transcribe, transcriber

__all__ = ["Transcriber", "transcribe", "transcriber"]
