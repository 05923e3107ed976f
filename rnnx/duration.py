"""Seconds as a person reads them."""


def duration(seconds: float) -> str:
    """`5 s`, `12 min 3 s` or `7 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600:,} h {seconds % 3600 // 60} min"
