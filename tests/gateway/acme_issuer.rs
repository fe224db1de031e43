//! The issuer that speaks ACME, against the real pebble.

mod account;
mod authorizations;
mod fixture;
mod limits;
mod not_yet;
mod order;
mod staging;
mod tolerance;
mod validations;
