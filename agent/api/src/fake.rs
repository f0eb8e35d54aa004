//! In-memory agents for tests of callers.
