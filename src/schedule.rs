//! When certificates are obtained, renewed and tried again: decisions alone.
//!
//! Everything here is a function of what is known and of the time; nothing here waits, stores or
//! asks anyone. `manager` and `service` carry out what is decided.

pub mod failure;

pub use self::failure::{Failure, FailureClass};
