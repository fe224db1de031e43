//! All limits of one account at a CA, or of a whole CA, by scope.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::block::Block;
use super::{Wait, WaitReason};
use crate::clock::UnixTime;
use crate::host::{Pattern, parent};
use crate::schedule::scope::{are_related, set_of};
use crate::schedule::{Intent, Scope};

/// The limits of a CA that were met, by scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Blocks {
    /// The limit on the whole account.
    account: Option<Block>,
    /// Limits on names at or below a domain.
    domains: BTreeMap<String, Block>,
    /// Limits on single names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    identifiers: BTreeMap<String, Block>,
    /// Limits on sets of names, see [`set_of`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    sets: BTreeMap<String, Block>,
    /// The limit on creating accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    registrations: Option<Block>,
    /// The limit on all requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<Block>,
}

impl Blocks {
    /// The limit that prevents an order: of several the widest, of those on names the one that
    /// lasts longest.
    pub(super) fn held(&self, intent: &Intent<'_>, now: UnixTime) -> Option<Wait> {
        if let Some(block) = self.ca.as_ref().filter(|block| block.holds(now)) {
            return Some(wait_of_block(Scope::Ca, block));
        }
        let account = self.account.as_ref();
        if let Some(block) = account.filter(|block| block.holds_one(intent.replaces, now)) {
            return Some(wait_of_block(Scope::Account, block));
        }
        if self.is_free_of_names() {
            return None;
        }
        let set = self.sets.get(&set_of(intent.names));
        let set = set.map(|block| (Scope::Set, block));
        let names = intent.names.iter().flat_map(|name| self.on_name(name));
        set.into_iter()
            .chain(names)
            .filter(|(_, block)| block.holds_one(intent.replaces, now))
            .max_by_key(|(_, block)| block.until)
            .map(|(scope, block)| wait_of_block(scope, block))
    }

    /// What prevents creating an account.
    pub(super) fn registration_held(&self, now: UnixTime) -> Option<Wait> {
        let block = self.registrations.as_ref();
        let block = block.filter(|block| block.holds(now))?;
        Some(wait_of_block(Scope::Registrations, block))
    }

    /// All limits that apply now, each once.
    pub(super) fn limits(&self, now: UnixTime) -> impl Iterator<Item = Wait> {
        let whole = [
            (Scope::Account, &self.account),
            (Scope::Registrations, &self.registrations),
            (Scope::Ca, &self.ca),
        ];
        let whole = whole
            .into_iter()
            .filter_map(|(scope, block)| Some((scope, block.as_ref()?)));
        let domains = self.domains.iter();
        let domains = domains.map(|(domain, block)| (Scope::Domain(domain.clone()), block));
        let names = self.identifiers.iter();
        let names = names.map(|(name, block)| (Scope::Identifier(name.clone()), block));
        let sets = self.sets.values().map(|block| (Scope::Set, block));
        whole
            .chain(domains)
            .chain(names)
            .chain(sets)
            .filter(move |(_, block)| block.holds(now))
            .map(|(scope, block)| wait_of_block(scope, block))
    }

    /// Records a limit with this `scope`, met by an order for these names. Returns it if it is new.
    pub(super) fn record_limit(
        &mut self,
        scope: Option<Scope>,
        block: Block,
        names: &[Pattern],
        now: UnixTime,
    ) -> Option<Wait> {
        let set = set_of(names);
        let scope = match scope {
            Some(scope) => scope,
            None if self.is_second(&set, now) => Scope::Account,
            None => Scope::Set,
        };
        let limit = wait_of_block(scope.clone(), &block);
        let is_news = match scope {
            Scope::Account => self.account.get_or_insert_default().record_limit(block),
            Scope::Registrations => self
                .registrations
                .get_or_insert_default()
                .record_limit(block),
            Scope::Ca => self.ca.get_or_insert_default().record_limit(block),
            Scope::Set => record_block(&mut self.sets, set, block, now),
            Scope::Domain(of) => record_block(&mut self.domains, domain(&of), block, now),
            Scope::Identifier(name) => {
                record_block(&mut self.identifiers, domain(&name), block, now)
            }
        };
        is_news.then_some(limit)
    }

    /// Merges what another instance has recorded.
    pub(super) fn merge_from(&mut self, other: &Self) {
        for (own, other) in [
            (&mut self.account, &other.account),
            (&mut self.registrations, &other.registrations),
            (&mut self.ca, &other.ca),
        ] {
            match (own.as_mut(), other) {
                (Some(present), Some(block)) => present.merge_from(block),
                (None, Some(block)) if !block.lifted => *own = Some(block.clone()),
                _ => {}
            }
        }
        for (own, other) in [
            (&mut self.domains, &other.domains),
            (&mut self.identifiers, &other.identifiers),
            (&mut self.sets, &other.sets),
        ] {
            for (on, block) in other {
                match own.get_mut(on) {
                    Some(present) => present.merge_from(block),
                    None if block.lifted => {}
                    None => {
                        own.insert(on.clone(), block.clone());
                    }
                }
            }
        }
    }

    /// Forgets the limits on the account, on all of the CA, and on these names.
    pub(super) fn clear_limits(&mut self, names: &[Pattern], now: UnixTime) {
        for block in [&mut self.account, &mut self.registrations, &mut self.ca] {
            block.get_or_insert_default().clear_limits(now);
        }
        for domain in names.iter().flat_map(domains) {
            let block = self.domains.entry(domain.to_owned()).or_default();
            block.clear_limits(now);
        }
        for name in names {
            let block = self.identifiers.entry(identifier(name)).or_default();
            block.clear_limits(now);
        }
        self.sets
            .entry(set_of(names))
            .or_default()
            .clear_limits(now);
        for blocks in [&mut self.domains, &mut self.identifiers, &mut self.sets] {
            blocks.retain(|_, block| block.until > now);
        }
    }

    /// See [`super::Limiter::drop_account_limit`].
    pub(super) fn drop_account_limit(&mut self, is_none: impl FnOnce(&str) -> bool) {
        self.account.take_if(|block| is_none(&block.message));
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Block> {
        let names = self.domains.values_mut();
        let names = names.chain(self.identifiers.values_mut());
        let whole = [&mut self.account, &mut self.registrations, &mut self.ca];
        names
            .chain(self.sets.values_mut())
            .chain(whole.into_iter().flatten())
    }

    fn is_free_of_names(&self) -> bool {
        self.domains.is_empty() && self.identifiers.is_empty() && self.sets.is_empty()
    }

    /// All limits on this name, whether they apply or are over.
    fn on_name(&self, name: &Pattern) -> impl Iterator<Item = (Scope, &Block)> {
        let of_domains = domains(name)
            .filter_map(|domain| self.domains.get_key_value(domain))
            .map(|(domain, block)| (Scope::Domain(domain.clone()), block));
        let own = self.identifiers.get_key_value(&identifier(name));
        let own = own.map(|(name, block)| (Scope::Identifier(name.clone()), block));
        of_domains.chain(own)
    }

    /// Returns true if a set of names of other registered domains is held by a limit without a
    /// known scope.
    fn is_second(&self, set: &str, now: UnixTime) -> bool {
        let mut unknown = self
            .sets
            .iter()
            .filter(|(_, block)| block.unknown && block.holds(now));
        unknown.any(|(other, _)| !are_related(set, other))
    }
}

fn wait_of_block(scope: Scope, block: &Block) -> Wait {
    Wait {
        until: block.until,
        reason: WaitReason::Limit(scope, block.message.clone()),
    }
}

/// Records a limit. Returns true if it is new.
fn record_block(
    blocks: &mut BTreeMap<String, Block>,
    on: String,
    block: Block,
    now: UnixTime,
) -> bool {
    let is_news = blocks.entry(on).or_default().record_limit(block);
    // Now and then, so that the cost is spread.
    if blocks.len().is_power_of_two() {
        blocks.retain(|_, block| block.until > now);
    }
    is_news
}

/// The domain of a name, and all its parents; none for an address.
fn domains(name: &Pattern) -> impl Iterator<Item = &str> {
    let first = match name {
        Pattern::Any | Pattern::Ip(_) => None,
        Pattern::Exact(name) | Pattern::Wildcard(name) => Some(name.as_str()),
    };
    std::iter::successors(first, |name| parent(name))
}

/// A name as CAs know it: a wildcard without its star.
fn identifier(name: &Pattern) -> String {
    domain(&name.to_string())
}

/// A CA's word for a domain in our form.
fn domain(text: &str) -> String {
    let text = text.strip_prefix("*.").unwrap_or(text);
    text.trim_matches('.').to_ascii_lowercase()
}
