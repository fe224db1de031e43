//! Makes very many certificates, for measurements alone.
//!
//! ```sh
//! cargo run --release --example certificates -- --directory /tmp/many --count 50000
//! ```
//!
//! makes `/tmp/many/root.pem`, which a client is to trust, and `/tmp/many/certs/` with a file
//! `s000001.bench.example.pem` for each, that holds certificate, intermediate and key. Called again
//! with `--first 7 --count 1` it replaces the seventh.

#[path = "../benches/support/leaves.rs"]
mod leaves;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

#[derive(Parser)]
struct Arguments {
    /// Where to make them.
    #[arg(long)]
    directory: PathBuf,
    /// How many.
    #[arg(long)]
    count: u32,
    /// The number of the first.
    #[arg(long, default_value_t = 1)]
    first: u32,
    /// The names are s000001.DOMAIN and on.
    #[arg(long, default_value = "bench.example")]
    domain: String,
    /// One key for all that are made now, or one for each.
    #[arg(long, value_enum, default_value_t = Keys::Shared)]
    keys: Keys,
    /// Keys in NAME.pem, or in NAME.key beside it.
    #[arg(long, value_enum, default_value_t = Layout::Combined)]
    layout: Layout,
    /// For how many days they are valid.
    #[arg(long, default_value_t = 90, allow_negative_numbers = true)]
    days: i32,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Keys {
    Shared,
    Own,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Layout {
    Combined,
    Pair,
}

fn main() -> leaves::Result<()> {
    let arguments = Arguments::parse();
    leaves::make(&leaves::Plan {
        directory: arguments.directory,
        domain: arguments.domain,
        first: arguments.first,
        count: arguments.count,
        own_keys: arguments.keys == Keys::Own,
        pairs: arguments.layout == Layout::Pair,
        days: arguments.days,
    })
}
