//! `snigate ca`: the local CA's root, printed or in the machine's trust stores.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow};
use openssl::x509::X509;

use super::failure::Failure;
use super::gateway;
use super::output::Output;
use super::trust::{Machine, Step, Store, nickname, quoted};

use crate::printable::Printable as _;

/// Prints the root certificates.
pub(super) fn root(output: &Output, config: &Path, issuer: Option<&str>) -> Result<(), Failure> {
    output.data(gateway::stored_roots(output, config, issuer)?)
}

/// Adds the root certificate to every trust store that it finds, or removes it. If there are two,
/// because one is about to succeed the other, each is handled separately: stores want one
/// certificate per file.
pub(super) fn trust(
    output: &Output,
    config: &Path,
    issuer: Option<&str>,
    dry_run: bool,
    uninstall: bool,
) -> Result<(), Failure> {
    let pem = gateway::stored_roots(output, config, issuer)?;
    let roots = X509::stack_from_pem(pem.as_bytes()).context("the root cannot be read")?;
    let machine = Machine::inspect();
    let stores = machine.stores();
    if stores.is_empty() {
        return Err(Failure::hinted(
            anyhow!("no trust store is known on this machine"),
            "print the root with `snigate ca root` and import it by hand",
        ));
    }
    for (number, root) in (1..).zip(&roots) {
        let root = root.to_pem().context("the root cannot be written")?;
        let name = nickname(&root);
        let mut file = tempfile::Builder::new()
            .prefix("snigate-root-")
            .suffix(".pem")
            .tempfile()
            .context("cannot create a temporary file")?;
        file.write_all(&root)
            .context("cannot write the temporary file")?;
        let shown = PathBuf::from(format!("root-{number}.pem"));
        let source = if dry_run { &shown } else { file.path() };
        if dry_run && !uninstall {
            let of = issuer.map_or_else(String::new, |name| format!(" --issuer {name}"));
            output.data(format!(
                "# {} is certificate {number} of: snigate ca root{of} --config {}\n",
                shown.printable(),
                quoted(config.as_os_str())
            ))?;
        }
        for store in &stores {
            let steps = if uninstall {
                store.uninstall(&name, &machine)
            } else {
                store.install(source, &name, &machine)
            };
            for step in &steps {
                if dry_run {
                    output.data(format!("{step}\n"))?;
                } else {
                    run(step)?;
                }
            }
            if !dry_run {
                output.note(report(store, uninstall));
            }
        }
    }
    Ok(())
}

fn report(store: &Store, uninstall: bool) -> String {
    let verb = if uninstall { "out of" } else { "in" };
    format!("the root certificate is {verb} {store}")
}

fn run(step: &Step) -> Result<(), Failure> {
    let done = Command::new(&step.program)
        .args(&step.arguments)
        .output()
        .with_context(|| format!("cannot run `{step}`"))?;
    if done.status.success() || step.may_fail {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let error = anyhow!("`{step}` failed ({}): {}", done.status, said.trim());
    if is_root() {
        Err(error.into())
    } else {
        Err(Failure::hinted(error, "try it as root"))
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

impl Machine {
    /// Inspects this machine.
    fn inspect() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        Self {
            root: "/".into(),
            home: env::var_os("HOME").map(Into::into),
            privileged: is_root(),
            programs: env::split_paths(&path)
                .chain(["/usr/sbin".into(), "/sbin".into()])
                .collect(),
        }
    }
}
