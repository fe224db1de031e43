//! The configuration: YAML in, a checked model or diagnostics out.
//!
//! `include` reads the files of a configuration (`yaml_tree` parses each into a tree with
//! locations), `check` compares the tree with the schema and decodes it, and `validate` turns the
//! decoded `schema` types into the [`model`]. Each step continues after an error, so that one run
//! reports everything. Nothing here starts, opens or connects to anything.

mod admin;
pub(crate) mod assemble;
mod check;
pub mod diagnostic;
mod include;
mod interpolate;
pub mod model;
mod problem;
mod route_places;
pub(crate) mod schema;
mod source;
mod validate;
mod yaml_tree;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::env::VarError;
use std::path::{Path, PathBuf};

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use route_places::RoutePlaces;
pub(crate) use validate::level_fault;
pub use validate::never_certified;

use crate::memory;
use problem::{At, Problems};
use source::Sources;
use yaml_tree::{Kind, Node, Place};

/// From this size in octets, a configuration is large.
const LARGE: usize = 1 << 20;

/// A configuration that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    pub config: model::Config,
    /// What is accepted, but probably not intended.
    pub warnings: Vec<Diagnostic>,
    /// Problems with files that single issuers or upstreams need, if those are tolerated: see
    /// [`load_for_start`].
    pub faults: Vec<Diagnostic>,
    /// Every file that was read (including `include`, `${file:…}`, roots and client certificates)
    /// and every directory in which a pattern of `include` may find more, as absolute paths in order:
    /// what to watch.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// A configuration with its warnings and tolerated faults in `list`.
    fn new(config: model::Config, list: Vec<Diagnostic>, files: Vec<PathBuf>) -> Self {
        let is_fault = |one: &Diagnostic| one.severity == Severity::Error;
        let (faults, warnings) = list.into_iter().partition(is_fault);
        Self {
            config,
            warnings,
            faults,
            files,
        }
    }
}

/// Loads a configuration from a file, with the environment of this process.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    Loader::new().load(path)
}

/// Loads a configuration from a file, with the environment of this process, and says where its
/// routes stand.
///
/// # Errors
/// What is wrong with it.
pub fn load_with_places(path: &Path) -> Result<(Loaded, RoutePlaces), Diagnostics> {
    let mut places = RoutePlaces::default();
    let read = |reader: &mut include::Reader<'_>| reader.file(path, None);
    let loaded = Loader::new().run(read, Some(&mut places))?;
    Ok((loaded, places))
}

/// Where the gateway of a configuration accepts commands, and the token that it requires.
///
/// # Errors
/// What is wrong with the configuration, if it is too broken to say.
pub fn load_admin(
    path: &Path,
) -> Result<(model::Admin, Option<crate::secret::Secret>), Diagnostics> {
    let loader = Loader::new();
    match loader.load(path) {
        Ok(Loaded { config, .. }) => Ok((config.server.admin, config.server.admin_token)),
        Err(diagnostics) => loader.read_admin(path).ok_or(diagnostics),
    }
}

/// As [`load`], for a start: an unusable file of an issuer or an upstream (such as its `ca_file`) is
/// a fault of that one, and does not keep all sites down.
///
/// # Errors
/// Everything else that is wrong.
pub fn load_for_start(path: &Path) -> Result<Loaded, Diagnostics> {
    let mut loader = Loader::new();
    loader.bears_faults = true;
    loader.load(path)
}

/// Loads a configuration from a text. Relative paths in it are relative to `directory`.
pub fn load_str(text: &str, directory: &Path) -> Result<Loaded, Diagnostics> {
    Loader::new().load_str(text, directory)
}

/// The JSON schema of a configuration, for editors.
pub fn schema() -> serde_json::Value {
    schema::schema()
}

/// Loads configurations, with any environment.
#[derive(Clone, Copy)]
pub struct Loader<'e> {
    environment: interpolate::Environment<'e>,
    /// Whether faults of single issuers and upstreams are tolerated.
    bears_faults: bool,
}

impl Default for Loader<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'e> Loader<'e> {
    /// A loader with the environment of this process.
    pub fn new() -> Self {
        Self {
            environment: &|name| std::env::var(name),
            bears_faults: false,
        }
    }

    /// Looks up variables with this function instead.
    #[must_use]
    pub fn with_environment(
        self,
        environment: &'e dyn Fn(&str) -> Result<String, VarError>,
    ) -> Self {
        Self {
            environment,
            ..self
        }
    }

    /// Loads a configuration from a file.
    pub fn load(&self, path: &Path) -> Result<Loaded, Diagnostics> {
        self.run(|reader| reader.file(path, None), None)
    }

    /// Loads a configuration from a text. Relative paths in it are relative to `directory`.
    pub fn load_str(&self, text: &str, directory: &Path) -> Result<Loaded, Diagnostics> {
        let shown = Path::new("<text>");
        let directory = source::absolute(directory);
        self.run(|reader| reader.text(shown, directory, &text.into()), None)
    }

    fn run(
        &self,
        read: impl FnOnce(&mut include::Reader<'_>),
        route_places: Option<&mut RoutePlaces>,
    ) -> Result<Loaded, Diagnostics> {
        let mut sources = Sources::default();
        let loaded = self.read(read, &mut sources, route_places);
        let is_large = sources.octets() > LARGE;
        let files = sources.into_watched();
        if is_large {
            // Its trees took many times as much, and are gone.
            memory::give_back();
        }
        match loaded {
            Ok((config, list)) => Ok(Loaded::new(config, list, files)),
            Err(list) => Err(Diagnostics { list, files }),
        }
    }

    /// The configuration with its warnings and tolerated faults, or what is wrong.
    fn read(
        &self,
        read: impl FnOnce(&mut include::Reader<'_>),
        sources: &mut Sources,
        route_places: Option<&mut RoutePlaces>,
    ) -> Result<(model::Config, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut problems = Problems::default();
        let mut reader = include::Reader {
            sources: &mut *sources,
            problems: &mut problems,
            environment: self.environment,
            seen: HashMap::new(),
            merged: yaml_tree::Map::default(),
            salvages: false,
        };
        read(&mut reader);
        let root = Node {
            place: Place::start(0),
            kind: Kind::Map(reader.merged),
        };
        // If some files are missing, references into them would be reported for nothing.
        let whole = problems.errors() == 0;
        let schema = schema::schema();
        let decoded = check::Check {
            schema: &schema,
            sources: &mut *sources,
            problems: &mut problems,
            environment: self.environment,
        }
        .root(&root);
        let mut config = None;
        if whole {
            match serde_yaml::from_value::<schema::Root>(decoded) {
                Ok(raw) => {
                    let problems = &mut problems;
                    let built = validate::validate(&raw, &root, sources, problems, route_places);
                    config = Some(built);
                }
                // Whatever passes the schema decodes: this is for the reader of a bug report. The
                // error's own text may contain a secret.
                Err(_) => problems.error(
                    &At::root(&root),
                    "the file has the right shape but cannot be decoded",
                    "please report this as a bug",
                ),
            }
        }
        let faults = if self.bears_faults {
            problems.faults()
        } else {
            0
        };
        let errors = problems.errors() - faults;
        let list = problems.into_diagnostics(sources);
        match config {
            Some(config) if errors == 0 => Ok((config, list)),
            _ => Err(list),
        }
    }
}
