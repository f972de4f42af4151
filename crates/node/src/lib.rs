//! One running engine: open, write, read, upkeep.
