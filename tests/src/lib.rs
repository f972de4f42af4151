//! Suites that drive real parts together.
