//! Loading where walarch goes beyond Barman: TOML, own options, leniency, hints and the examples.
