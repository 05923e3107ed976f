"""Sound files to features: log energies of mel bands, 100 times a second."""

import io
from pathlib import Path

import numpy as np

from rnnx.errors import UserError

BANDS = 40
FRAME_RATE = 100.0  # frames a second
_LEAST = 0.025  # seconds of one frame


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Samples (N,) float32 in [-1, 1], the mean of all channels, and their rate.

    Any format and width of sample that libsndfile reads: wav, flac, ogg.

    Raises:
      UserError: a file that is not there, no sound, cut off, or without samples.
    """
    import soundfile  # of the extra `speech`

    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    announced = int.from_bytes(data[4:8], "little") + 8 if data[:4] == b"RIFF" else 0
    if len(data) < announced < 2**32:  # above: the length was not known when it was written
        raise UserError(f"{path} is cut off: {len(data):,} of {announced:,} bytes")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate = file.samplerate
            samples = file.read(dtype="float32", always_2d=True).mean(axis=1)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path} is no sound file that can be read: {error.error_string}") from None
    if not len(samples):
        raise UserError(f"{path} holds no samples")
    if not np.isfinite(samples).all():
        raise UserError(f"{path} holds samples that are not finite")
    return samples, rate


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples at another rate, by a polyphase filter."""
    if rate == wanted:
        return samples
    from scipy.signal import resample_poly

    divisor = np.gcd(rate, wanted)
    return resample_poly(samples, wanted // divisor, rate // divisor).astype(np.float32)


def log_mel(samples: np.ndarray, rate: int) -> np.ndarray:
    """(T, 40) log energies of mel bands of windows of 25 ms, every 10 ms; Kaldi's, without dither.

    Raises:
      UserError: for less than one window.
    """
    if len(samples) < _LEAST * rate:
        raise UserError(f"{1000 * len(samples) / rate:.0f} ms of sound: at least 25 are needed")
    return Bands(rate).hear(samples)


class Bands:
    """`log_mel` of sound that comes in pieces."""

    def __init__(self, rate: int):
        import kaldi_native_fbank as knf  # of the extra `speech`

        options = knf.FbankOptions()
        options.frame_opts.samp_freq = rate
        options.frame_opts.dither = 0.0
        options.mel_opts.num_bins = BANDS
        self._bank, self._rate, self._given = knf.OnlineFbank(options), rate, 0

    def hear(self, samples: np.ndarray) -> np.ndarray:
        """The frames (T, 40) that are whole with these samples; T may be 0."""
        self._bank.accept_waveform(self._rate, 32768 * samples)
        ready = range(self._given, self._bank.num_frames_ready)
        # Copied: the bank forgets what is popped.
        frames = np.array([self._bank.get_frame(i) for i in ready], np.float32)
        self._bank.pop(len(ready))
        self._given += len(ready)
        return frames.reshape(-1, BANDS)


def features(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """`log_mel` of samples brought to the rate `wanted`."""
    return log_mel(resampled(samples, rate, wanted), wanted)
