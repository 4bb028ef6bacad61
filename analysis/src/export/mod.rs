//! Writes a profile in the formats of other tools. One format a file.
