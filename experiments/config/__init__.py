"""RunConfig (what decides a result), RuntimeConfig (what does not), presets, validation and defaults."""

from experiments.config.schema import RunConfig, RuntimeConfig

__all__ = ["RunConfig", "RuntimeConfig"]
