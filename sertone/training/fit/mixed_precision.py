"""Mixed precision for Fabric that leaves the inputs of a model in fp32."""

from typing import Any

from lightning_fabric.plugins import MixedPrecision


class MixedPrecisionOfProducts(MixedPrecision):
    """Mixed precision in the products of a model alone.

    Fabric's own plugin also rounds the waveforms. The log-mel energies of a rounded waveform differ by up to
    half a standard deviation, and predictions and cached prefixes have those of the exact waveform.
    """

    def convert_input(self, data: Any) -> Any:
        """Return the input of a model unchanged; autocast rounds what a product takes."""
        return data
