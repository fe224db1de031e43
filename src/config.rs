//! The configuration: YAML in, a checked model or diagnostics out.

pub mod model;
