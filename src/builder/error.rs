//! Why an engine does not start.

use thiserror::Error;

use crate::engine::EngineError;

/// Why an engine does not start, for people: what is wrong, and what to do about it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The builder was given something that cannot be used. One line for each mistake, which begins
    /// with the key that a configuration file has for it: `issuers.ca.acme.email`.
    #[error("{}", mistakes.join("\n"))]
    Invalid {
        /// All mistakes.
        mistakes: Vec<String>,
    },
    /// There is no place for a storage.
    #[error(
        "there is no default place for certificates: neither XDG_DATA_HOME nor HOME is set; set one \
         of them, or call 'storage' with a FileStorage"
    )]
    NoPlace,
    /// There is no Tokio runtime.
    #[error(
        "an engine runs on a Tokio runtime, and there is none here; await 'start' in an async main \
         or in Runtime::block_on, and keep the runtime for as long as the engine"
    )]
    NoRuntime,
    /// The start was interrupted.
    #[error("the start was interrupted by a bug, or because the runtime is shutting down")]
    Interrupted,
    /// The engine cannot be made.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
