//! `tapstack show`: one transaction, as text or in another form.

mod body;
mod text;

use std::{io::IsTerminal as _, path::Path};

use anyhow::{Context as _, bail};
use archive::{Reader, Row};
use clap::Args;
use transaction::{Digest, Transaction};

use super::{
    data_dir::{DataDir, access_url},
    format::{Look, escaped_json, is_harmful, print},
};

/// Fewer digits than this are refused: they would mean another transaction tomorrow.
const SHORTEST: usize = 6;

/// Show one transaction.
#[derive(Args)]
#[command(after_help = "Examples:
  tapstack show 3f9a1c07
  tapstack show http://127.0.0.1:3904/qpoint/3f9a1c07…
  tapstack show --json 3f9a1c07 | jq .response.status
  tapstack show --json 3f9a1c07 | sha1sum          the digest is the SHA-1 of the stored bytes
  tapstack show --har 3f9a1c07 > one.har           for a browser's network panel
  tapstack show --curl 3f9a1c07                    the request as a shell command")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line; clap lets one form through")]
pub(crate) struct Show {
    /// Digest, the beginning of one (at least 6 digits), or the address of an object
    #[arg(value_name = "DIGEST|URL")]
    object: String,
    /// The stored object: its exact bytes, unless at a terminal
    #[arg(long, group = "form")]
    json: bool,
    /// HAR 1.2
    #[arg(long, group = "form")]
    har: bool,
    /// A curl command that sends the request again
    #[arg(long, group = "form")]
    curl: bool,
    /// The response's body alone, as it was kept
    #[arg(long, group = "form")]
    raw: bool,
    /// With --raw: the request's body
    #[arg(long, requires = "raw")]
    request: bool,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Show {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let dir = self.data_dir.for_reading()?;
        let reader = Reader::open(&dir)?;
        let digest = resolve(&self.object, &reader, &dir)?;
        let gone = || format!("object {digest} was deleted this moment: it was too old, or the archive is full");
        let bytes = reader.object(&digest)?.with_context(gone)?;
        let look = Look::of_stdout();
        if self.json && look.columns.is_none() {
            return Ok(print(bytes)?);
        }
        if self.json {
            let value: serde_json::Value = serde_json::from_slice(&bytes).context("the object is not JSON")?;
            return Ok(print(escaped_json(&serde_json::to_string_pretty(&value)?) + "\n")?);
        }
        let transaction: Transaction =
            serde_json::from_slice(&bytes).with_context(|| format!("object {digest} is not a transaction"))?;
        if self.har {
            let har = serde_json::to_string_pretty(&transaction::har([&transaction]))? + "\n";
            return Ok(print(if look.columns.is_some() { escaped_json(&har) } else { har })?);
        }
        if self.curl {
            return Ok(print(transaction::curl(&transaction))?);
        }
        if self.raw {
            return raw(&transaction, self.request);
        }
        let Row { record, .. } = reader.record(&digest)?.with_context(gone)?;
        Ok(print(text::render(&transaction, &record, &access_url(&dir).of(&digest), look))?)
    }
}

/// The digest that is meant by a digest, the beginning of one, or an address that ends in one.
fn resolve(given: &str, reader: &Reader, dir: &Path) -> anyhow::Result<Digest> {
    let is_address = given.contains('/');
    let path = given.split(['?', '#']).next().unwrap_or(given).trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    if last.is_empty() || last.len() > 40 || !last.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!(
            "{given:?} is neither a digest (40 hexadecimal digits, or the first of them) nor an address that ends in one"
        );
    }
    if is_address && last.len() != 40 {
        bail!("the address {given:?} does not end in a whole digest of 40 digits");
    }
    if last.len() < SHORTEST {
        bail!("{given:?} is too short: give at least {SHORTEST} digits of the digest");
    }
    let found = reader.digests(&last, 6)?;
    match found[..] {
        [digest] => Ok(digest),
        [] => bail!(
            "no object {last} in {}: it was deleted (too old, or the archive was full), or another host has it",
            dir.display()
        ),
        _ => {
            let all: Vec<String> = found.iter().take(5).map(Digest::to_string).collect();
            let more = if found.len() > all.len() { " and more" } else { "" };
            bail!("{last} is the beginning of several digests, give more digits: {}{more}", all.join(", "))
        }
    }
}

/// Writes one body. What a terminal would act on does not go to one.
fn raw(transaction: &Transaction, of_request: bool) -> anyhow::Result<()> {
    let (whose, body) = if of_request {
        ("request", transaction.request.as_ref().map(|r| &r.body))
    } else {
        ("response", transaction.response.as_ref().map(|r| &r.body))
    };
    let Some(body) = body else { bail!("no {whose} was seen") };
    let harmless = |c: char| !is_harmful(c) || matches!(c, '\n' | '\t' | '\r');
    let plain = std::str::from_utf8(&body.0).is_ok_and(|text| text.chars().all(harmless));
    if std::io::stdout().is_terminal() && !plain {
        bail!("the {whose}'s body is binary: write it to a file with `> FILE`");
    }
    Ok(print(&body.0)?)
}
