//! `snigate certs check`: whether a name would get a certificate, and why not.

use super::arguments::CheckArgs;
use super::{PATH, json};
use crate::admin::PreflightView;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Style, clean};
use crate::issuer::Verdict;

pub(super) fn check(output: &Output, arguments: CheckArgs) -> Result<(), Failure> {
    let CheckArgs {
        name,
        json: as_json,
        http_port,
        https_port,
        timeout,
        remote,
    } = arguments;
    let client = crate::cli::connect(output, remote)?.patient(timeout.duration());
    let path = format!("{PATH}/{name}/check?http_port={http_port}&https_port={https_port}");
    let view: PreflightView = client.post(&path)?.decode()?;
    if as_json {
        output.data(json(&view)?)?;
    } else {
        output.data(text(&view, output.style()))?;
    }
    if view.would_issue {
        return Ok(());
    }
    Err(anyhow::anyhow!("{} would get no certificate", view.name).into())
}

fn text(view: &PreflightView, style: Style) -> String {
    let mut text = format!("{}: {}\n", style.bold(&view.name), clean(&view.note));
    for issuer in &view.issuers {
        let verdict = match issuer.would_issue {
            true => style.green("would issue a certificate"),
            false => style.red("would issue none"),
        };
        text.push_str(&format!("{}: {verdict}\n", issuer.issuer));
        for finding in &issuer.findings {
            let mark = match finding.verdict {
                Verdict::Good => style.green("good"),
                Verdict::Unknown => style.yellow("open"),
                Verdict::Bad => style.red("bad "),
            };
            let (about, message) = (&finding.about, clean(&finding.message));
            text.push_str(&format!("  {mark}  {about:<15} {message}\n"));
        }
    }
    text
}
