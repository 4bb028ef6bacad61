//! The functions that a profile's weight goes to.
