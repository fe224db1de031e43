//! `snigate ca`: the local CA's root, on paper and in the machine's trust stores.

use std::env;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, anyhow};

use super::failure::Failure;
use super::gateway;
use super::output::Output;
use super::trust::{Machine, Step, Store};

/// Prints the root certificate.
pub(super) fn root(output: &Output, config: &Path) -> Result<(), Failure> {
    output.data(gateway::stored_root(output, config)?)
}

/// Puts the root certificate into every trust store that it finds, or takes it out again.
pub(super) fn trust(
    output: &Output,
    config: &Path,
    dry_run: bool,
    uninstall: bool,
) -> Result<(), Failure> {
    let root = gateway::stored_root(output, config)?;
    let machine = Machine::look();
    let stores = machine.stores();
    if stores.is_empty() {
        return Err(Failure::hinted(
            anyhow!("no trust store is known on this machine"),
            "print the root with `snigate ca root` and import it by hand",
        ));
    }
    let mut file = tempfile::Builder::new()
        .prefix("snigate-root-")
        .suffix(".pem")
        .tempfile()
        .context("cannot make a temporary file")?;
    file.write_all(root.as_bytes())
        .context("cannot write the temporary file")?;
    let source = if dry_run {
        Path::new("root.pem")
    } else {
        file.path()
    };
    if dry_run && !uninstall {
        output.data(format!(
            "snigate ca root --config {} > root.pem\n",
            quoted(config)
        ))?;
    }
    for store in &stores {
        let steps = if uninstall {
            store.uninstall(&root, &machine)
        } else {
            store.install(source, &root, &machine)
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

fn quoted(path: &Path) -> String {
    super::trust::quoted(path.as_os_str())
}

impl Machine {
    /// What this machine has.
    fn look() -> Self {
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
