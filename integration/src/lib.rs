//! End-to-end tests; see the folder's tests.
