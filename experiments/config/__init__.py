"""RunConfig (what decides a result), RuntimeConfig (what does not), presets, validation and defaults."""
