//! Counts what was replaced, by place.

use transaction::object::Redaction;

/// More different places than this are counted together: their names come from the wire.
pub(crate) const MOST_PLACES: usize = 64;

/// Where something stands: `request` `header` `Location`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// `request`, `response`, `response.interim` or `process`.
    pub(super) side: &'a str,
    /// `header`, `url`, `body`, …
    pub(super) part: &'a str,
    /// The header's name in any case, or empty.
    pub(super) name: &'a str,
}

impl Place<'_> {
    /// The place as written in the object. What stands in a URL is not said to: `request.query.token`.
    fn path(&self, kind: &str, word: &str) -> String {
        let part = if self.part == "url" && kind == "query" { "" } else { self.part };
        let name = crate::capture::head::canonical(self.name);
        let mut path = String::with_capacity(40);
        for piece in [self.side, part, &name, kind, word].into_iter().filter(|piece| !piece.is_empty()) {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(piece);
        }
        path
    }
}

/// The count of one transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Vec<Redaction>);

impl Tally {
    /// One more value was replaced. `kind` and `word` say what showed that it is secret.
    pub(super) fn add(&mut self, place: Place<'_>, kind: &str, word: &str) {
        let path = if self.0.len() < MOST_PLACES { place.path(kind, word) } else { "other".to_owned() };
        match self.0.iter_mut().find(|known| known.place == path) {
            Some(known) => known.count = known.count.saturating_add(1),
            None => self.0.push(Redaction { place: path, action: "mask".to_owned(), count: 1 }),
        }
    }

    /// What was counted so far.
    pub(crate) fn list(&self) -> &[Redaction] {
        &self.0
    }

    /// The object's `redactions`.
    pub(crate) fn into_list(self) -> Vec<Redaction> {
        self.0
    }
}
