//! Finds out whether a name would get a certificate: runs a preflight at each of its issuers.

use crate::admin::{IssuerPreflight, PreflightView};
use crate::host::Pattern;
use crate::issuer::{Finding, Ports, Preflight, Verdict, would_issue};
use crate::manager::{IssuancePlan, PlannedIssuer, Reason};

/// Runs preflights at the issuers, in the order in which they would be asked.
pub(super) async fn run_preflight(
    name: &Pattern,
    ports: Ports,
    would: IssuancePlan,
) -> PreflightView {
    let trial = Preflight {
        name: name.clone(),
        dns: would.dns,
        ports,
    };
    let mut issuers = Vec::with_capacity(would.issuers.len());
    for issuer in would.issuers {
        let (issuer, findings) = match issuer {
            PlannedIssuer::Remote(issuer) => {
                (issuer.name().to_string(), issuer.preflight(&trial).await)
            }
            PlannedIssuer::Local(name) => {
                let message = "the local CA issues certificates for all names without further \
                               checks";
                let finding = Finding::new("local CA", Verdict::Good, message);
                (name.to_string(), vec![finding])
            }
        };
        issuers.push(IssuerPreflight {
            issuer,
            would_issue: would_issue(&findings),
            findings,
        });
    }
    PreflightView {
        name: name.to_string(),
        would_issue: issuers.iter().any(|issuer| issuer.would_issue),
        note: plan_note(name, would.why, issuers.is_empty()),
        issuers,
    }
}

/// The response if nothing could be found out.
pub(super) fn failed_preflight(name: &Pattern) -> PreflightView {
    PreflightView {
        name: name.to_string(),
        would_issue: false,
        note: "the check was interrupted by a bug; see the log".to_owned(),
        issuers: Vec::new(),
    }
}

fn plan_note(name: &Pattern, why: Reason, nobody: bool) -> String {
    match why {
        Reason::NoTls => format!("the site of {name} has 'tls: off': no certificate is requested"),
        _ if nobody => "no issuer is configured: add one under 'issuers'".to_owned(),
        Reason::Certificates => format!("{name} is listed under 'certificates'"),
        Reason::Site => {
            format!("a site has {name}; no certificate is requested if one already covers it")
        }
        Reason::OnDemand => format!(
            "{name} gets its certificate on demand: when a client asks for it, and 'on_demand.ask' \
             and 'on_demand.limits' allow it"
        ),
        Reason::Nothing => format!(
            "nothing in the configuration names {name} yet: this is how a new site would fare"
        ),
    }
}
