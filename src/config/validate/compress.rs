//! `compress` of sites and routes.

use std::sync::Arc;

use super::context::Context;
use crate::config::model::{Coding, Compression, CompressionLevel, MediaTypes};
use crate::config::problem::At;
use crate::config::schema::{self, Compress, CompressLevel, CompressOptions, Switch};
use crate::field::is_token;

/// Media types whose data is compressed already, so that another time only costs work.
const COMPRESSED: [&str; 15] = [
    "application/gzip",
    "application/pdf",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-gzip",
    "application/x-xz",
    "application/zip",
    "application/zstd",
    "font/woff",
    "font/woff2",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
];

/// How responses are compressed, if they are.
pub(super) fn compression(
    ctx: &mut Context<'_>,
    raw: &Compress,
    at: &At<'_>,
) -> Option<Arc<Compression>> {
    let default = CompressOptions::default();
    let raw = match raw {
        Compress::Switch(Switch::Off) => return None,
        Compress::Switch(Switch::On) => &default,
        Compress::On(options) => options,
    };
    Some(Arc::new(Compression {
        codings: codings(ctx, &raw.algorithms, &at.key("algorithms")),
        types: media_types(ctx, &raw.types, &at.key("types")),
        min_size: ctx.body_size(&at.key("min_size"), &raw.min_size),
        level: match raw.level {
            CompressLevel::Fast => CompressionLevel::Fast,
            CompressLevel::Default => CompressionLevel::Default,
            CompressLevel::Best => CompressionLevel::Best,
        },
    }))
}

fn codings(ctx: &mut Context<'_>, raw: &[schema::Coding], at: &At<'_>) -> Vec<Coding> {
    let mut codings = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let coding = match raw {
            schema::Coding::Zstd => Coding::Zstd,
            schema::Coding::Br => Coding::Brotli,
            schema::Coding::Gzip => Coding::Gzip,
        };
        if codings.contains(&coding) {
            let at = at.index(index);
            let message = format!("{} is named twice", at.quoted());
            ctx.problems.error(&at, message, "keep one of the two");
        } else {
            codings.push(coding);
        }
    }
    codings
}

fn media_types(ctx: &mut Context<'_>, raw: &[String], at: &At<'_>) -> Vec<MediaTypes> {
    let mut types = Vec::with_capacity(raw.len());
    for (index, raw) in raw.iter().enumerate() {
        let at = at.index(index);
        match parse(&raw.to_ascii_lowercase()) {
            Some(MediaTypes::Exact(one)) if COMPRESSED.contains(&&*one) => {
                let message = format!("data of the type {} is compressed already", at.quoted());
                ctx.problems.error(&at, message, "remove it");
            }
            Some(MediaTypes::Exact(one)) if one.starts_with("application/grpc") => {
                let message = "gRPC compresses its messages itself";
                ctx.problems.error(&at, message, "remove it");
            }
            Some(parsed) => types.push(parsed),
            None => {
                let message = format!("{} is not a media type", at.quoted());
                let hint = "write a type such as text/html, text/* or *+json, without parameters";
                ctx.problems.error(&at, message, hint);
            }
        }
    }
    types
}

fn parse(text: &str) -> Option<MediaTypes> {
    let is_word = |text: &str| {
        let octets = text.bytes();
        !text.is_empty() && octets.clone().all(is_token) && !octets.clone().any(|one| one == b'*')
    };
    if let Some(suffix) = text.strip_prefix('*') {
        let word = suffix.strip_prefix('+')?;
        return is_word(word).then(|| MediaTypes::Suffix(suffix.into()));
    }
    let (main, sub) = text.split_once('/')?;
    if !is_word(main) {
        return None;
    }
    match sub {
        "*" => Some(MediaTypes::Main(format!("{main}/").into())),
        sub => is_word(sub).then(|| MediaTypes::Exact(text.into())),
    }
}
