//! Exchanges in, transactions out.
