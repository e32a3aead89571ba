"""Studies: many runs planned, tuned and trained as one comparison. The committed study files (*.toml) lie here too."""
