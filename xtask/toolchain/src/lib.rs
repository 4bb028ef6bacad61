//! chokepoint-toolchain
