//! Pages: what was captured, as HTML without scripts.
//!
//! In: transactions and records. Out: one string of HTML. Called by `object` and `explorer`, on blocking
//! threads. Everything captured goes through askama's escaping or through [`html::escape`]; the only parts
//! marked safe in the templates are made by `body`, `json` and `timing`.

mod body;
mod html;
mod json;
mod list;
mod timing;
mod transaction;
mod words;

pub(crate) use list::list;
pub(crate) use transaction::transaction;

/// The last part of a path: what people call a program.
fn base(exe: &str) -> &str {
    exe.rsplit('/').next().filter(|b| !b.is_empty()).unwrap_or(exe)
}
