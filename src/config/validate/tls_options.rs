//! Versions, cipher suites and protocols, which `tls` has for all sites and a site for itself.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::context::Context;
use crate::config::model::{Ciphers, TlsVersion};
use crate::config::problem::At;
use crate::config::schema;

/// These keys of a `tls` mapping as they are written.
pub(super) struct TlsOptions<'a> {
    profile: Option<schema::TlsProfile>,
    versions: Option<&'a schema::TlsVersions>,
    ciphers: Option<&'a [schema::Cipher]>,
    alpn: Option<Cow<'a, [schema::AlpnProtocol]>>,
}

impl<'a> From<&'a schema::Tls> for TlsOptions<'a> {
    fn from(raw: &'a schema::Tls) -> Self {
        Self {
            profile: raw.profile,
            versions: raw.versions.as_ref(),
            ciphers: raw.ciphers.as_deref(),
            alpn: raw.alpn.as_deref().map(Cow::Borrowed),
        }
    }
}

impl<'a> From<&'a schema::SiteTlsOptions> for TlsOptions<'a> {
    fn from(raw: &'a schema::SiteTlsOptions) -> Self {
        Self {
            profile: raw.profile,
            versions: raw.versions.as_ref(),
            ciphers: raw.ciphers.as_deref(),
            // Others are for sites that have no requests.
            alpn: raw.alpn.as_ref().map(|list| {
                let known = |name: &String| schema::AlpnProtocol::named(name);
                list.iter().filter_map(known).collect()
            }),
        }
    }
}

impl TlsOptions<'_> {
    /// The first of the keys that is given.
    pub(super) fn first_key(&self) -> Option<&'static str> {
        let given = [
            ("profile", self.profile.is_some()),
            ("versions", self.versions.is_some()),
            ("ciphers", self.ciphers.is_some()),
            ("alpn", self.alpn.is_some()),
        ];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given);
        given.next().map(|(key, _)| key)
    }

    /// The versions, if any are given.
    pub(super) fn versions(
        &self,
        ctx: &mut Context<'_>,
        at: &At<'_>,
    ) -> Option<RangeInclusive<TlsVersion>> {
        let Some(versions) = self.versions else {
            return Some(match self.profile? {
                schema::TlsProfile::Intermediate => TlsVersion::ALL,
                schema::TlsProfile::Modern => TlsVersion::Tls13..=TlsVersion::Tls13,
            });
        };
        let at = at.key("versions");
        if self.profile.is_some() {
            let message = "'profile' and 'versions' exclude each other";
            ctx.problems
                .error(&at.at_key(), message, "keep one of the two");
            return None;
        }
        let read = |version| match version {
            schema::TlsVersion::Tls12 => TlsVersion::Tls12,
            schema::TlsVersion::Tls13 => TlsVersion::Tls13,
        };
        let (min, max) = (read(versions.min), read(versions.max));
        if min > max {
            let message = "'min' is newer than 'max': no version is left";
            ctx.problems.error(&at, message, "swap the two");
            return None;
        }
        Some(min..=max)
    }

    /// The cipher suites, if any are given. `spoken` are the versions that need some.
    pub(super) fn ciphers(
        &self,
        ctx: &mut Context<'_>,
        spoken: &RangeInclusive<TlsVersion>,
        at: &At<'_>,
    ) -> Option<Ciphers> {
        let list = self.ciphers?;
        let at = at.key("ciphers");
        report_twice(ctx, list, &at);
        let of = |is_tls13: bool| {
            let some = list.iter().filter(move |one| one.is_tls13() == is_tls13);
            some.map(|one| one.name()).collect::<Vec<_>>()
        };
        let ciphers = Ciphers {
            tls12: of(false),
            tls13: of(true),
        };
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let name = version.as_str();
            match (spoken.contains(&version), ciphers.of(version).is_empty()) {
                (true, true) => {
                    let message = format!("there is no cipher suite for {name}");
                    let example = match version {
                        TlsVersion::Tls12 => "ECDHE-ECDSA-AES128-GCM-SHA256",
                        TlsVersion::Tls13 => "TLS_AES_128_GCM_SHA256",
                    };
                    let hint = format!("add one, such as {example}, or leave that version out");
                    ctx.problems.error(&at, message, hint);
                }
                (false, false) => {
                    let message =
                        format!("there are cipher suites for {name}, which is not spoken");
                    ctx.problems.error(&at, message, "remove them");
                }
                _ => {}
            }
        }
        Some(ciphers)
    }

    /// The protocols in ALPN's names, if any are given.
    pub(super) fn protocols(
        &self,
        ctx: &mut Context<'_>,
        at: &At<'_>,
    ) -> Option<Box<[&'static str]>> {
        let list = self.alpn.as_deref()?;
        report_twice(ctx, list, &at.key("alpn"));
        let names = list.iter().flat_map(|protocol| match protocol {
            schema::AlpnProtocol::Http2 => &["h2"][..],
            // HTTP/1.0 is served as HTTP/1.1 is.
            schema::AlpnProtocol::Http1 => &["http/1.1", "http/1.0"],
        });
        Some(names.copied().collect())
    }
}

fn report_twice<T: PartialEq>(ctx: &mut Context<'_>, list: &[T], at: &At<'_>) {
    for (index, one) in list.iter().enumerate() {
        if list.iter().take(index).any(|before| before == one) {
            let at = at.index(index);
            let message = format!("{} is listed twice", at.quoted());
            ctx.problems.error(&at, message, "remove one of the two");
        }
    }
}
