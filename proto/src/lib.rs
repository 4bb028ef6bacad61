//! chokepoint-proto
