//! chokepoint-tests
