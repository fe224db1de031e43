//! The build of OpenSSL that `openssl-sys` calls, from the line that the program ships.
//!
//! The interface of `openssl-src` has not changed between the lines. What else `openssl-sys` needs of
//! the newer one it finds out from the headers.

pub use maintained::*;
