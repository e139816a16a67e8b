"""Speech encoders: waveforms in, hidden states of all layers out. `config` lists them."""
