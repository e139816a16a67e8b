"""What the folds of a run have in common: decoded audio, and where the encoders' prefixes are kept."""

from dataclasses import dataclass
from typing import Self

from sertone.recipe.train_config import TrainConfig
from sertone.training.data.caches import PrefixCaches
from sertone.training.data.recordings import Recordings


@dataclass(frozen=True)
class SharedCaches:
    """Shared by the processes of a run: pickled, it opens the same memory again.

    Attributes:
        recordings: decoded audio.
        prefixes: where the output of frozen prefixes is kept.
    """

    recordings: Recordings
    prefixes: PrefixCaches

    @classmethod
    def from_config(cls, config: TrainConfig) -> Self:
        """Empty, as large as the recipe allows."""
        return cls(Recordings(config.audio_cache_gb, config.playback_speeds), PrefixCaches(config))
