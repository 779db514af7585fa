//! The rulekit expression language: filters and capture rules. Pure, no I/O.
//!
//! The lexer, parser and evaluator arrive with the search language of `find` and the gateway; until
//! then the crate only reserves its place in the workspace.
