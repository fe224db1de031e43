//! Follows the aliases (CNAME) in a response.

use hickory_proto::op::Message;
use hickory_proto::rr::RData;

use super::host;
use crate::dns::DnsError;
use crate::dns::exchange;
use crate::host::HostName;

/// How many aliases are followed.
const MOST_ALIASES: usize = 8;

/// Follows the aliases in one response starting from `at`, and appends each to `aliases`.
pub(in crate::dns) fn follow_cnames(
    answer: &Message,
    at: &HostName,
    aliases: &mut Vec<HostName>,
) -> Result<HostName, DnsError> {
    let mut at = at.clone();
    loop {
        let wire = exchange::wire(&at)?;
        let target = answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == wire => Some(&target.0),
            _ => None,
        });
        let Some(target) = target else {
            return Ok(at);
        };
        let Some(next) = host(target) else {
            return Err(DnsError::Refused(format!(
                "{at} is an alias (CNAME) of {target}, which is not a host name"
            )));
        };
        let wrong = if aliases.contains(&next) {
            "leads in a loop"
        } else if aliases.len() > MOST_ALIASES {
            "leads over more than 8 aliases"
        } else {
            aliases.push(next.clone());
            at = next;
            continue;
        };
        let way: Vec<_> = aliases
            .iter()
            .chain([&next])
            .map(HostName::as_str)
            .collect();
        return Err(DnsError::Refused(format!(
            "the alias (CNAME) {wrong}: {}",
            way.join(" → ")
        )));
    }
}
