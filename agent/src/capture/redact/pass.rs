//! One walk over bytes in which secrets are masked where they stand: free text, addresses, queries.
//!
//! Ranges are visited from front to back; each method masks what is secret in its range and leaves the rest.

use std::ops::Range;

use super::{
    edit::{Edit, MASK},
    json, names,
    names::Kind,
    pattern::{self, Lead, Text},
    shape,
    tally::{Place, Tally},
};

/// How deep encodings may stand inside of each other: a query in a query, JSON in a JSON string.
const DEEPEST: u8 = 4;

/// No name before a `=` is longer than this on either side of the part that was found.
const LONGEST_NAME: usize = 64;

/// Where something stands, and where it is counted.
pub(super) struct Pass<'a, 't> {
    pub(super) src: &'a [u8],
    pub(super) edit: Edit<'a>,
    pub(super) place: Place<'t>,
    pub(super) tally: &'t mut Tally,
    /// `src` went on, and its rest was not kept.
    pub(super) cut: bool,
    pub(super) depth: u8,
    /// `src` is JSON: a double quote ends every value, because inside of one it has a backslash.
    pub(super) json: bool,
}

impl<'a, 't> Pass<'a, 't> {
    pub(super) fn new(src: &'a [u8], place: Place<'t>, tally: &'t mut Tally, cut: bool) -> Self {
        Pass { src, edit: Edit::new(src), place, tally, cut, depth: 0, json: false }
    }

    /// Walks over another text at the same place, e.g. a decoded part of this one.
    fn inner(&mut self, src: &[u8], walk: impl FnOnce(&mut Pass<'_, '_>)) -> Option<Vec<u8>> {
        let mut pass = Pass {
            src,
            edit: Edit::new(src),
            place: self.place,
            tally: self.tally,
            cut: self.cut,
            depth: self.depth + 1,
            json: false,
        };
        walk(&mut pass);
        pass.edit.finish()
    }

    /// Masks a range and counts it, unless nothing or the mask itself stands there.
    pub(super) fn mask(&mut self, range: Range<usize>, kind: &str, word: &str) {
        let start = range.start.max(self.edit.taken());
        if start < range.end && &self.src[start..range.end] != MASK {
            self.edit.replace(start..range.end, MASK);
            self.tally.add(self.place, kind, word);
        }
    }

    /// A value that was found by its decoded form, whatever that is: JSON, an address, text.
    pub(super) fn value(&mut self, decoded: &[u8]) -> Option<Vec<u8>> {
        if self.depth >= DEEPEST {
            return None;
        }
        let json = shape::is_json(decoded);
        if json {
            let first = self.inner(decoded, json::walk);
            let text = first.as_deref().unwrap_or(decoded);
            let second = self.inner(text, |pass| {
                pass.json = true;
                pass.text(0..pass.src.len());
            });
            return second.or(first);
        }
        let query = !decoded.contains(&b' ') && decoded.iter().any(|&b| matches!(b, b'?' | b'='));
        self.inner(decoded, |pass| {
            let all = 0..pass.src.len();
            if query {
                pass.address(all);
            } else if memchr::memchr(b'%', decoded).is_some() {
                pass.part(all);
            } else {
                pass.text(all);
            }
        })
    }

    /// Free text: values by their form, addresses in it, and `name=value`.
    pub(super) fn text(&mut self, range: Range<usize>) {
        let mut from = range.start;
        // A run of base64url that ends in no JWT has none that begins inside of it either.
        let mut barren = range.start;
        let text = Text { src: self.src, to: range.end, cut: self.cut && range.end == self.src.len() };
        while let Some((lead, at)) = pattern::next(self.src, from..range.end) {
            from = match lead {
                Lead::Address => self.address_in_text(at.start, range.clone()).max(at.end),
                Lead::Name => self.named(at.clone(), range.clone()).unwrap_or(at.end),
                Lead::Jwt if at.start < barren => at.end,
                _ => {
                    if let Some((secret, word)) = text.judge(lead, at.clone()) {
                        let end = secret.end;
                        self.mask(secret, "pattern", word);
                        end
                    } else {
                        if lead == Lead::Jwt {
                            barren = text.jwt_head(at.start);
                        }
                        at.start + 1
                    }
                }
            };
        }
    }

    /// An address around its `://`; answers where the walk goes on.
    fn address_in_text(&mut self, colon: usize, range: Range<usize>) -> usize {
        let scheme = self.src[range.start..colon]
            .iter()
            .rposition(|&b| !(b.is_ascii_alphanumeric() || b"+-.".contains(&b)))
            .map_or(range.start, |at| range.start + at + 1);
        let quote = scheme.checked_sub(1).map(|at| self.src[at]).filter(|&b| b == b'\'');
        let ends = |b: u8| b <= b' ' || b == 0x7f || b"\"<>\\`".contains(&b) || Some(b) == quote;
        let end = self.src[colon..range.end].iter().position(|&b| ends(b)).map_or(range.end, |at| colon + at);
        if self.depth >= DEEPEST {
            self.userinfo(colon + 3..end);
            return colon + 3;
        }
        self.depth += 1;
        self.address(scheme..end);
        self.depth -= 1;
        end
    }

    /// Credentials before the `@` of an authority that begins at `range.start`; answers where the authority ends.
    fn userinfo(&mut self, range: Range<usize>) -> usize {
        let authority = &self.src[range.clone()];
        let authority = &authority[..authority.iter().position(|b| b"/?#".contains(b)).unwrap_or(authority.len())];
        let end = range.start + authority.len();
        if let Some(at) = authority.iter().rposition(|&b| b == b'@') {
            self.mask(range.start..range.start + at, "userinfo", "");
        } else if self.cut && end == self.src.len() {
            // Cut before an `@` could come: what follows the colon is a password unless it can be a port.
            let colon = authority.iter().position(|&b| b == b':').unwrap_or(authority.len());
            let rest = authority.get(colon + 1..).unwrap_or_default();
            if rest.len() > 5 || rest.iter().any(|b| !b.is_ascii_digit()) {
                self.mask(range.start..end, "userinfo", "");
            }
        }
        end
    }

    /// An authority alone: `user:password@host:port`.
    pub(super) fn authority(&mut self, range: Range<usize>) {
        let host = self.userinfo(range);
        self.text(self.edit.taken()..host);
    }

    /// An address or a request's target: userinfo, path with its parameters, query, fragment.
    pub(super) fn address(&mut self, range: Range<usize>) {
        let all = &self.src[range.clone()];
        let query = all.iter().position(|b| b"?#".contains(b)).map_or(range.end, |at| range.start + at);
        let path = match memchr::memmem::find(&self.src[range.start..query], b"://") {
            Some(at) => self.userinfo(range.start + at + 3..query),
            None => range.start,
        };
        self.path(path..query);
        let mut from = query;
        while from < range.end {
            // A fragment may be a query too: OAuth's implicit grant puts the token there (RFC 6749 section 4.2.2).
            let to = self.src[from + 1..range.end]
                .iter()
                .position(|b| b"?#".contains(b))
                .map_or(range.end, |at| from + 1 + at);
            self.query(from + 1..to);
            from = to;
        }
    }

    fn path(&mut self, range: Range<usize>) {
        let mut from = range.start;
        while from < range.end {
            let to = memchr::memchr2(b'/', b';', &self.src[from + 1..range.end]).map_or(range.end, |at| from + 1 + at);
            let segment = &self.src[from..to];
            if segment.first() == Some(&b';') {
                // RFC 3986 section 3.3: parameters of a segment, e.g. `;jsessionid=…`.
                self.query(from + 1..to);
            } else if segment.contains(&b'%') {
                let decoded = percent_decoded(segment);
                if self.depth < DEEPEST && self.inner(&decoded, |pass| pass.text(0..pass.src.len())).is_some() {
                    let start = from + usize::from(segment.first() == Some(&b'/'));
                    self.edit.replace(start..to, MASK);
                } else {
                    self.text(from..to);
                }
            } else if to - from > 8 || memchr::memchr(b':', segment).is_some() {
                self.text(from..to);
            }
            from = to;
        }
    }

    /// `name=value` pairs joined by `&`: a query string, a fragment or a form.
    pub(super) fn query(&mut self, range: Range<usize>) {
        let mut from = range.start;
        loop {
            let to = memchr::memchr(b'&', &self.src[from..range.end]).map_or(range.end, |at| from + at);
            self.pair(from..to);
            if to == range.end {
                return;
            }
            from = to + 1;
        }
    }

    fn pair(&mut self, range: Range<usize>) {
        let Some(equals) = memchr::memchr(b'=', &self.src[range.clone()]).map(|at| range.start + at) else {
            return self.part(range);
        };
        let raw = &self.src[range.start..equals];
        let name = if is_encoded(raw) { percent_decoded(raw).into() } else { std::borrow::Cow::Borrowed(raw) };
        if let Some(word) = names::secret(&name, Kind::Query) {
            self.mask(equals + 1..range.end, if self.place.part == "body" { "form" } else { "query" }, word);
        } else {
            self.part(range.start..equals);
            self.part(equals + 1..range.end);
        }
    }

    /// A name or a value that is not secret by itself.
    fn part(&mut self, range: Range<usize>) {
        let raw = &self.src[range.clone()];
        if is_encoded(raw) && self.depth < DEEPEST {
            let decoded = percent_decoded(raw);
            if self.value(&decoded).is_some() {
                self.edit.replace(range, MASK);
                return;
            }
        }
        if raw.len() > 4 {
            self.text(range);
        }
    }

    /// `name=value`, `name: value`, `"name": "value"` or `<name>value</name>` around a part of a name that was
    /// found at `at`; answers where the walk goes on.
    fn named(&mut self, at: Range<usize>, range: Range<usize>) -> Option<usize> {
        let src = self.src;
        let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"_-.".contains(b);
        let least = range.start.max(at.start.saturating_sub(LONGEST_NAME)).max(self.edit.taken().min(at.start));
        let start = src[least..at.start].iter().rposition(|b| !is_name(b)).map_or(least, |n| least + n + 1);
        let most = range.end.min(at.end + LONGEST_NAME);
        let end = src[at.end..most].iter().position(|b| !is_name(b)).map_or(most, |n| at.end + n);
        let word = names::secret(&src[start..end], Kind::Json)?;
        let text = Text { src, to: range.end, cut: self.cut };
        let before = start.checked_sub(1).map(|n| src[n]);
        if matches!(before, Some(b'<' | b':'))
            && start > range.start
            && let Some(value) = self.element(end, range.end)
        {
            let next = value.end;
            self.mask(value, "text", word);
            return Some(next);
        }
        let after = text.run(end, |b| b"\\\"'] \t".contains(&b));
        let sign = text.run(after, |b| b":=".contains(&b));
        if sign == after {
            return None;
        }
        let sign = text.run(sign, |b| b == b'>' || b == b' ' || b == b'\t');
        let quote = if self.json { Some(b'"') } else { before.filter(|b| b"\"'".contains(b)) };
        let value = self.named_value(sign, range.end, word, quote);
        let next = value.end.max(at.end);
        self.mask(value, "text", word);
        Some(next)
    }

    /// The text of an XML element whose name ends at `from`.
    fn element(&self, from: usize, to: usize) -> Option<Range<usize>> {
        let window = &self.src[from..to.min(from + 256)];
        let close = window.iter().position(|b| matches!(b, b'>' | b'<'))?;
        if window[close] == b'<'
            || (close > 0 && window[close - 1] == b'/')
            || (close > 0 && !window[0].is_ascii_whitespace())
        {
            return None;
        }
        let start = from + close + 1;
        let end = memchr::memchr(b'<', &self.src[start..to]).map_or(to, |at| start + at);
        Some(start..end)
    }

    /// The value after a `=` or `:` at `from`; `around` is the quote that name and value stand in together.
    fn named_value(&self, from: usize, to: usize, word: &str, around: Option<u8>) -> Range<usize> {
        let text = Text { src: self.src, to, cut: self.cut };
        let start = text.run(from, |b| b == b'\\');
        let escapes = start - from;
        match self.src.get(start).filter(|_| start < to) {
            Some(&quote @ (b'"' | b'\'')) => {
                let inside = start + 1;
                let mut at = inside;
                // The closing quote has as many backslashes before it as the opening one.
                while let Some(found) = memchr::memchr(quote, &self.src[at..to]).map(|n| at + n) {
                    let slashes = self.src[inside..found].iter().rev().take_while(|&&b| b == b'\\').count();
                    let closes = if escapes == 0 { slashes.is_multiple_of(2) } else { slashes == escapes };
                    if closes {
                        return inside..found - if escapes == 0 { 0 } else { escapes };
                    }
                    at = found + 1;
                }
                inside..text.run(inside, |b| b != b'\n')
            }
            // Schemes and cookies have spaces and quotes in them; they go on to the end of the line.
            _ if matches!(word, "authorization" | "cookie" | "setcookie") => {
                let rest = &self.src[from..to];
                let ends = |at: usize| match rest[at] {
                    b'\r' | b'\n' | b'<' => true,
                    b'\\' => matches!(rest.get(at + 1), Some(b'r' | b'n')),
                    b => Some(b) == around,
                };
                from..from + (0..rest.len()).find(|&at| ends(at)).unwrap_or(rest.len())
            }
            _ => {
                let end = if self.src[from..to].starts_with(MASK) { from + MASK.len() } else { from };
                from..text.run(end, |b| b > b' ' && !b"&;,\"'<>(){}[]`\\".contains(&b))
            }
        }
    }
}

fn is_encoded(text: &[u8]) -> bool {
    memchr::memchr2(b'%', b'+', text).is_some()
}

/// Undoes percent-encoding; `+` is a space. What is no encoding stays.
pub(super) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        rest = tail;
        out.push(match (first, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (other, _) => *other,
        });
    }
    out
}
