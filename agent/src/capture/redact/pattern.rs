//! Values that show by their own form that they are secret: tokens with a known beginning, JSON Web Tokens,
//! private keys, credentials after `Bearer` and `Basic`.
//!
//! One automaton finds every beginning in one pass; what follows it is then judged by hand. Each judgement is
//! bounded or consumes what it has read, so hostile text costs no more than linear time.

use std::{ops::Range, sync::LazyLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::{
    Engine as _,
    alphabet::STANDARD as ALPHABET,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// A token with a fixed beginning.
struct Token {
    lead: &'static str,
    word: &'static str,
    /// Fewer characters after the beginning are no token.
    least: usize,
    also: &'static [u8],
}

const fn token(lead: &'static str, word: &'static str, least: usize, also: &'static [u8]) -> Token {
    Token { lead, word, least, also }
}

/// Beginnings as their makers document them; `also` is allowed beside letters and digits.
const TOKENS: &[Token] = &[
    token("AKIA", "aws", 16, b""),
    token("ASIA", "aws", 16, b""),
    token("ghp_", "github", 16, b""),
    token("gho_", "github", 16, b""),
    token("ghs_", "github", 16, b"_.-"),
    token("ghu_", "github", 16, b""),
    token("ghr_", "github", 16, b""),
    token("github_pat_", "github", 16, b"_"),
    token("glpat-", "gitlab", 16, b"_-."),
    token("sk_live_", "stripe", 8, b""),
    token("sk_test_", "stripe", 8, b""),
    token("rk_live_", "stripe", 8, b""),
    token("rk_test_", "stripe", 8, b""),
    token("whsec_", "stripe", 16, b"+/="),
    token("xoxa-", "slack", 8, b"-"),
    token("xoxb-", "slack", 8, b"-"),
    token("xoxp-", "slack", 8, b"-"),
    token("xoxr-", "slack", 8, b"-"),
    token("xoxs-", "slack", 8, b"-"),
    token("xapp-", "slack", 8, b"-"),
    token("AIza", "google", 30, b"_-"),
    token("sk-ant-", "anthropic", 16, b"_-"),
    token("sk-proj-", "openai", 16, b"_-"),
    token("npm_", "npm", 30, b""),
];

/// What else the automaton looks for. It compares bytes exactly, and with at most 64 beginnings in all it can
/// look at 32 bytes at a time; so names and words stand here without their first letter, in the cases in use.
const OTHERS: &[(&str, Lead)] = &[
    ("eyJ", Lead::Jwt),
    ("-----BEGIN ", Lead::Pem),
    ("earer ", Lead::Bearer),
    ("EARER ", Lead::Bearer),
    ("asic ", Lead::Basic),
    ("ASIC ", Lead::Basic),
    ("://", Lead::Address),
    // Parts of the names in `names` that any text may have before `=` or `:`.
    ("assw", Lead::Name),
    ("assW", Lead::Name),
    ("ASSW", Lead::Name),
    ("assphrase", Lead::Name),
    ("ASSPHRASE", Lead::Name),
    ("pwd", Lead::Name),
    ("Pwd", Lead::Name),
    ("PWD", Lead::Name),
    ("ecret", Lead::Name),
    ("ECRET", Lead::Name),
    ("oken", Lead::Name),
    ("OKEN", Lead::Name),
    ("redential", Lead::Name),
    ("REDENTIAL", Lead::Name),
    ("uthorization", Lead::Name),
    ("UTHORIZATION", Lead::Name),
    ("ookie", Lead::Name),
    ("OOKIE", Lead::Name),
    ("essid", Lead::Name),
    ("ESSID", Lead::Name),
    ("ession", Lead::Name),
    ("ESSION", Lead::Name),
    ("key", Lead::Name),
    ("Key", Lead::Name),
    ("KEY", Lead::Name),
];

/// What a hit of the automaton may be the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lead {
    /// An entry of [`TOKENS`].
    Token(usize),
    Jwt,
    Pem,
    Bearer,
    Basic,
    /// `://` of an address that may have credentials.
    Address,
    /// A name that may be followed by a secret value.
    Name,
}

static LEADS: LazyLock<Option<(AhoCorasick, Vec<Lead>)>> = LazyLock::new(|| {
    let tokens = TOKENS.iter().enumerate().map(|(n, token)| (token.lead, Lead::Token(n)));
    let (texts, leads): (Vec<_>, Vec<_>) = tokens.chain(OTHERS.iter().copied()).unzip();
    let automaton =
        AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).kind(Some(AhoCorasickKind::DFA)).build(texts);
    // The patterns are constant and few; a test holds that they can be built.
    automaton.ok().map(|automaton| (automaton, leads))
});

/// The next beginning in `range`: what it may be, and where it stands.
pub(super) fn next(src: &[u8], range: Range<usize>) -> Option<(Lead, Range<usize>)> {
    let (automaton, leads) = LEADS.as_ref()?;
    let hit = automaton.find(aho_corasick::Input::new(src).span(range))?;
    Some((leads[hit.pattern().as_usize()], hit.range()))
}

/// A text in which a secret may begin: `to` is where it ends, `cut` whether it went on.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) src: &'a [u8],
    pub(super) to: usize,
    pub(super) cut: bool,
}

impl Text<'_> {
    /// The end of the run of bytes of one kind that begins at `from`.
    pub(super) fn run(&self, from: usize, class: impl Fn(u8) -> bool) -> usize {
        let rest = &self.src[from.min(self.to)..self.to];
        from + rest.iter().position(|&b| !class(b)).unwrap_or(rest.len())
    }

    /// A run that reaches the end of a text that was cut may have been as long as one likes.
    fn open(&self, end: usize) -> bool {
        self.cut && end == self.to
    }

    /// What is secret in what begins at `at`, and the word for it.
    pub(super) fn judge(&self, lead: Lead, at: Range<usize>) -> Option<(Range<usize>, &'static str)> {
        match lead {
            Lead::Token(n) => self.token(&TOKENS[n], at),
            Lead::Jwt => self.jwt(at),
            Lead::Pem => self.pem(at),
            Lead::Bearer => self.bearer(at),
            Lead::Basic => self.basic(at),
            Lead::Address | Lead::Name => None,
        }
    }

    fn token(&self, token: &Token, at: Range<usize>) -> Option<(Range<usize>, &'static str)> {
        let end = self.run(at.end, |b| b.is_ascii_alphanumeric() || token.also.contains(&b));
        (end - at.end >= token.least || self.open(end)).then_some((at.start..end, token.word))
    }

    /// Where the first part of a JWT that begins at `from` ends. It is short: the bound keeps a long run from
    /// costing a square.
    pub(super) fn jwt_head(&self, from: usize) -> usize {
        Text { to: self.to.min(from + 2048), ..*self }.run(from, is_base64url)
    }

    /// RFC 7519: parts of base64url joined by dots, the first of which is a JSON object.
    fn jwt(&self, at: Range<usize>) -> Option<(Range<usize>, &'static str)> {
        let first = self.jwt_head(at.start);
        if self.open(first) {
            return Some((at.start..first, "jwt"));
        }
        if first - at.start < 16
            || self.src.get(first) != Some(&b'.')
            || first >= self.to
            || !ends_object(&self.src[at.start..first])
        {
            return None;
        }
        let end = self.run(first + 1, |b| is_base64url(b) || b == b'.');
        (end > first + 1 || self.open(end)).then_some((at.start..end, "jwt"))
    }

    /// RFC 7468 section 10 and 11, and what OpenSSL, OpenSSH and PGP write in the same manner.
    fn pem(&self, at: Range<usize>) -> Option<(Range<usize>, &'static str)> {
        const LONGEST: usize = 64 * 1024;
        let label = &self.src[at.end..self.to.min(at.end + 64)];
        let label = match memchr::memmem::find(label, b"-----") {
            Some(end) => &label[..end],
            None if self.open(at.end + label.len()) => return Some((at.start..self.to, "pem")),
            None => return None,
        };
        memchr::memmem::find(label, b"PRIVATE KEY")?;
        let inside = at.end + label.len() + 5;
        let window = &self.src[inside..self.to.min(inside + LONGEST)];
        let end = match memchr::memmem::find(window, b"-----END ") {
            Some(last) => {
                let tail = inside + last + 9;
                let close = &self.src[tail..self.to.min(tail + 64)];
                memchr::memmem::find(close, b"-----").map_or(tail + close.len(), |close| tail + close + 5)
            }
            // No end: as far as it can be the key. A backslash is a JSON escape of a line feed.
            None => {
                self.run(inside, |b| b.is_ascii_alphanumeric() || b.is_ascii_whitespace() || b"+/=\\:,-".contains(&b))
            }
        };
        Some((at.start..end, "pem"))
    }

    /// The token after the word `Bearer` (RFC 6750 section 2.1), unless it looks like a word of prose.
    fn bearer(&self, at: Range<usize>) -> Option<(Range<usize>, &'static str)> {
        let start = self.run(at.end, |b| b == b' ');
        let end = self.run(start, |b| is_base64url(b) || b".~+/=".contains(&b));
        let value = &self.src[start..end];
        let likely = value.len() >= 16 || (value.len() >= 8 && value.iter().any(u8::is_ascii_digit));
        (likely || (self.open(end) && !value.is_empty())).then_some((start..end, "bearer"))
    }

    /// The credentials after the word `Basic` (RFC 7617 section 2): base64 of a text with a colon.
    fn basic(&self, at: Range<usize>) -> Option<(Range<usize>, &'static str)> {
        let start = self.run(at.end, |b| b == b' ');
        let end = self.run(start, |b| b.is_ascii_alphanumeric() || b"+/=-_".contains(&b));
        let value = &self.src[start..end];
        let bytes = value.strip_suffix(b"==").or_else(|| value.strip_suffix(b"=")).unwrap_or(value);
        let colon = || LENIENT.decode(bytes).is_ok_and(|plain| plain.contains(&b':'));
        (self.open(end) && !value.is_empty() || value.len() >= 4 && colon()).then_some((start..end, "basic"))
    }
}

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

fn is_base64url(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'-' || b == b'_'
}

/// Whether base64url text, decoded, ends with `}`: told from its last group alone.
fn ends_object(text: &[u8]) -> bool {
    let mut last = text[text.len() - ((text.len() - 1) % 4 + 1)..].to_vec();
    for b in &mut last {
        *b = match *b {
            b'-' => b'+',
            b'_' => b'/',
            b => b,
        };
    }
    LENIENT.decode(&last).is_ok_and(|plain| plain.ends_with(b"}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_automaton_can_be_built_and_has_few_enough_patterns() {
        assert!(LEADS.as_ref().is_some_and(|(_, leads)| leads.len() <= 64));
    }
}
