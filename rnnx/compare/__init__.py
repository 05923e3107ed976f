"""Whether Multiplicative Integration or a Recurrent Highway Network is worth it on given data."""
