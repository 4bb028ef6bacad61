//! chokepoint
