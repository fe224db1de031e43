//! What the command line needs from the gateway, in one place.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use serde_json::Value;

use super::client::Address;
use super::failure::Failure;
use super::output::Output;
use crate::app::{self, StartError};
use crate::certificate::Loader;
use crate::clock::SystemClock;
use crate::config::model::{self, Admin, Config, Issuer, Origin};
use crate::config::{self, Diagnostic, Diagnostics, Loaded, Severity};
use crate::edge;
use crate::local_ca::LocalCa;
use crate::manager::TlsManager;
use crate::printable::Printable as _;
use crate::problem::Problem;
use crate::proxy::Lane;
use crate::secret::Secret;
use crate::service::signals::{Blocked, Signals};
use crate::storage::FileStorage;

/// The result of a check.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) sites: usize,
    pub(super) certificates: usize,
    /// How many certificates CAs are asked for.
    pub(super) to_obtain: usize,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

/// Where a configuration has the admin interface.
#[derive(Debug)]
pub(super) enum AdminPlace {
    At(Address, Option<Secret>),
    Off,
}

/// Checks everything that `run` would load.
pub(super) fn check(config: &Path) -> Report {
    match config::load(config) {
        Ok(loaded) => check_certificates(loaded),
        Err(diagnostics) => {
            let (errors, warnings) = diagnostics
                .list
                .into_iter()
                .partition(|diagnostic| diagnostic.severity == Severity::Error);
            Report {
                errors,
                warnings,
                ..Report::default()
            }
        }
    }
}

/// Checks the certificates that a valid configuration names. Creates nothing.
fn check_certificates(loaded: Loaded) -> Report {
    let Loaded {
        config, warnings, ..
    } = loaded;
    let mut report = Report {
        sites: config.sites.len(),
        warnings,
        ..Report::default()
    };
    match TlsManager::check(&config, Arc::new(storage(&config)), Arc::new(SystemClock)) {
        Ok(found) => {
            let told = |problems: Vec<Problem>, severity| {
                problems
                    .into_iter()
                    .map(move |one| diagnostic(one, severity))
            };
            report.certificates = found.certificates;
            report.to_obtain = found.to_obtain;
            report.errors.extend(told(found.problems, Severity::Error));
            report
                .warnings
                .extend(told(found.warnings, Severity::Warning));
        }
        Err(error) => report.errors.push(Diagnostic::about(
            Severity::Error,
            &Origin::default(),
            format!("OpenSSL cannot be used: {error}"),
        )),
    }
    // In the order of the files, to be worked through from top to bottom.
    for found in [&mut report.errors, &mut report.warnings] {
        found.sort_by(|one, other| {
            let place = |one: &Diagnostic| (one.line, one.column);
            one.file
                .cmp(&other.file)
                .then(place(one).cmp(&place(other)))
        });
    }
    report
}

fn diagnostic(problem: Problem, severity: Severity) -> Diagnostic {
    let message = match &problem.file {
        Some(file) => format!("{}: {}", file.printable(), problem.message),
        None => problem.message,
    };
    Diagnostic::about(severity, &problem.origin, message)
}

/// Where the gateway that runs with `config` accepts commands, even if the configuration has become
/// invalid; if that is unclear, the mistakes are shown.
pub(super) fn admin(output: &Output, config: &Path) -> Result<AdminPlace, Failure> {
    let (admin, token) =
        config::load_admin(config).map_err(|diagnostics| refuse(output, &diagnostics))?;
    Ok(match admin {
        Admin::Off => AdminPlace::Off,
        Admin::Tcp(address) => AdminPlace::At(Address::listening_on(address), token),
        Admin::Unix(path) => AdminPlace::At(Address::Unix(path), token),
    })
}

/// The JSON schema of the configuration.
pub(super) fn schema() -> Value {
    config::schema()
}

/// Prepares this process to be a gateway: it listens to signals from now on. Must be called before
/// there is another thread.
pub(super) fn listen(blocked: Option<Blocked>) -> Result<Signals, Failure> {
    // Before there is a child: what systemd passes is for the process that it has started.
    edge::take_inherited_sockets();
    app::withhold_descriptors();
    app::forbid_new_privileges().context("cannot give up the right to gain privileges")?;
    let ended = app::leave_first_process().context("cannot create a process for the gateway")?;
    if let Some(code) = ended {
        return Err(Failure::Ended(code));
    }
    let signals = Signals::listen().context("cannot listen for signals")?;
    drop(blocked);
    Ok(signals)
}

/// Runs the gateway until it is stopped.
pub(super) fn run(
    output: &Output,
    config: &Path,
    lane: Lane,
    signals: Signals,
) -> Result<(), Failure> {
    // Before it is loaded: a reload must find the same files as the start did.
    let file = std::path::absolute(config).context("cannot find the configuration's directory")?;
    let loaded = config::load_for_start(&file).map_err(|wrong| refuse(output, &wrong))?;
    if signals.is_to_stop() {
        return Ok(());
    }
    for odd in loaded.faults.iter().chain(&loaded.warnings) {
        output.diagnostic(odd);
    }
    match app::run(file, loaded, lane, signals) {
        Err(StartError::Configuration(why)) => {
            output.mistake(why);
            Err(Failure::Invalid)
        }
        outcome => Ok(outcome.context("cannot start the gateway")?),
    }
}

/// The stored root certificates of the configured local CAs, or of the one called `issuer`, in PEM.
pub(super) fn stored_roots(
    output: &Output,
    config: &Path,
    issuer: Option<&str>,
) -> Result<String, Failure> {
    let Loaded { config, .. } = load(output, config)?;
    let storage = storage(&config);
    let mut roots = String::new();
    let all = local_cas(&config, None)?;
    let locals: Vec<&str> = all.iter().map(|(issuer, _)| &***issuer).collect();
    for (issuer, _) in local_cas(&config, issuer)? {
        let root = LocalCa::stored_root_pem(&storage, issuer, &locals)
            .with_context(|| format!("cannot read the root of the issuer {issuer}"))?;
        roots.push_str(&root.unwrap_or_default());
    }
    if roots.is_empty() {
        return Err(Failure::hinted(
            anyhow!("the local CA has no root certificate yet"),
            "it is created when the gateway first starts",
        ));
    }
    Ok(roots)
}

/// The root certificate of the first local CA, created if there is none yet.
pub(super) fn root(output: &Output, config: &Path) -> Result<String, Failure> {
    let Loaded { config, .. } = load(output, config)?;
    let cas = local_cas(&config, None)?;
    let (issuer, name) = cas.first().context("there is a local CA")?;
    let loader = Loader::new().context("cannot start OpenSSL")?;
    let locals: Vec<&str> = cas.iter().map(|(issuer, _)| &***issuer).collect();
    let ca = LocalCa::open(
        Arc::clone(issuer),
        &locals,
        name,
        Arc::new(storage(&config)),
        Arc::new(SystemClock),
        Arc::new(loader),
    )
    .context("cannot open the local CA")?;
    Ok(ca.root_pem())
}

/// Loads a configuration, or shows what is wrong with it on stderr.
fn load(output: &Output, config: &Path) -> Result<Loaded, Failure> {
    config::load(config).map_err(|diagnostics| refuse(output, &diagnostics))
}

/// Shows what is wrong.
fn refuse(output: &Output, diagnostics: &Diagnostics) -> Failure {
    for diagnostic in diagnostics {
        output.diagnostic(diagnostic);
    }
    Failure::Invalid
}

/// The local CAs of a configuration, or the one called `issuer`, with the names of their roots;
/// never none.
fn local_cas<'c>(
    config: &'c Config,
    issuer: Option<&str>,
) -> Result<Vec<(&'c Arc<str>, &'c str)>, Failure> {
    let mut cas: Vec<(&Arc<str>, &str)> = config
        .issuers
        .iter()
        .filter_map(|(issuer, kind)| match kind {
            Issuer::LocalCa { name } => Some((issuer, name.as_str())),
            Issuer::Acme(_) | Issuer::Own => None,
        })
        .collect();
    if cas.is_empty() {
        return Err(Failure::hinted(
            anyhow!("the configuration has no local CA"),
            "add one: issuers: { local: { local_ca: { name: My CA } } }",
        ));
    }
    let Some(wanted) = issuer else {
        return Ok(cas);
    };
    let names: Vec<&str> = cas.iter().map(|(name, _)| &***name).collect();
    let known = format!("the local CAs are: {}", names.join(", "));
    cas.retain(|(name, _)| &***name == wanted);
    if cas.is_empty() {
        let error = anyhow!("the configuration has no local CA named {wanted:?}");
        return Err(Failure::hinted(error, known));
    }
    Ok(cas)
}

fn storage(config: &Config) -> FileStorage {
    match &config.storage {
        model::Storage::File { path } => FileStorage::new(path),
    }
}
