//! Events as flat attributes: the one place where their names are given.
//!
//! In: an [`ArtifactRecord`] or a [`ConnectionEvent`]. Out: name and value pairs, which `deliver` makes OTLP
//! attributes of, and one flat JSON object, which `tail --json` and `find --json` print. A text that would be
//! empty is left out; numbers are bare, so that `>= 400` in a query compares numbers.

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    ArtifactRecord, ConnectionEvent,
    time::{millis, rfc3339},
};

/// A value of a flat attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text, never empty.
    Text(&'a str),
    /// A whole number.
    Number(u64),
    /// Milliseconds with at most three decimals.
    Millis(f64),
    /// Yes or no.
    Flag(bool),
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match *self {
            Value::Text(text) => s.serialize_str(text),
            Value::Number(n) => s.serialize_u64(n),
            Value::Millis(ms) => s.serialize_f64(ms),
            Value::Flag(flag) => s.serialize_bool(flag),
        }
    }
}

/// Takes the attributes one by one and drops empty texts.
struct Sink<'f>(&'f mut dyn FnMut(&'static str, Value<'_>));

impl Sink<'_> {
    fn text(&mut self, name: &'static str, value: &str) {
        if !value.is_empty() {
            (self.0)(name, Value::Text(value));
        }
    }

    fn number(&mut self, name: &'static str, value: impl Into<u64>) {
        (self.0)(name, Value::Number(value.into()));
    }

    fn millis(&mut self, name: &'static str, ns: u64) {
        (self.0)(name, Value::Millis(millis(ns)));
    }

    fn flag(&mut self, name: &'static str, value: bool) {
        (self.0)(name, Value::Flag(value));
    }
}

/// An event that is made of flat attributes.
pub trait Flat {
    /// Calls `f` for each attribute, in the order of the documentation.
    fn attributes(&self, f: &mut dyn FnMut(&'static str, Value<'_>));

    /// One flat JSON object, without a line feed.
    fn to_json(&self) -> Vec<u8>
    where
        Self: Sized,
    {
        // Attributes are texts and finite numbers: writing them to memory cannot fail.
        serde_json::to_vec(&Object(self)).unwrap_or_default()
    }
}

/// Serialises any [`Flat`] as a map.
struct Object<'a, T>(&'a T);

impl<T: Flat> Serialize for Object<'_, T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut map = s.serialize_map(None)?;
        let mut failed = None;
        self.0.attributes(&mut |name, value| {
            if failed.is_none() {
                failed = map.serialize_entry(name, &value).err();
            }
        });
        match failed {
            Some(error) => Err(error),
            None => map.end(),
        }
    }
}

/// The `artifact_record` event of a record: what only the sender knows beside what the archive keeps.
#[derive(Clone, Copy, Debug)]
pub struct ArtifactEvent<'a> {
    /// What the archive keeps.
    pub record: &'a ArtifactRecord,
    /// Where the object can be opened.
    pub url: &'a str,
    /// Name of the host that captured.
    pub host_name: &'a str,
}

impl Flat for ArtifactEvent<'_> {
    fn attributes(&self, f: &mut dyn FnMut(&'static str, Value<'_>)) {
        let (r, mut to) = (self.record, Sink(f));
        to.text("event.type", "artifact_record");
        to.text("timestamp", &rfc3339(r.time_unix_ns));
        to.text("type", "http_transaction");
        to.text("digest", &r.digest.to_string());
        to.text("url", self.url);
        to.text("request_method", &r.request_method);
        to.text("request_host", &r.request_host);
        to.text("request_scheme", &r.request_scheme);
        to.text("request_path", &r.request_path);
        to.text("request_protocol", &r.request_protocol);
        to.text("request_content_type", &r.request_content_type);
        if let Some(status) = r.response_status {
            to.number("response_status", status);
        }
        to.text("response_content_type", &r.response_content_type);
        to.millis("duration_ms", r.duration_ns);
        if let Some(ns) = r.ttfb_ns {
            to.millis("ttfb_ms", ns);
        }
        to.number("bytes_sent", r.bytes_sent);
        to.number("bytes_received", r.bytes_received);
        to.text("process_exe", &r.process_exe);
        to.number("process_pid", r.process_pid);
        to.text("process_unit", &r.process_unit);
        to.text("container_id", &r.container_id);
        to.text("container_name", &r.container_name);
        to.text("direction", r.direction.as_str());
        to.text("end", r.end.as_str());
        to.text("level", r.level.as_str());
        to.flag("complete", r.complete);
        to.text("error_type", r.error_type.as_deref().unwrap_or_default());
        to.text("request_id", &r.request_id);
        to.text("connection_id", &r.connection_id);
        to.text("exchange_id", &r.exchange_id);
        to.text("host_name", self.host_name);
    }
}

impl Serialize for ArtifactEvent<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        Object(self).serialize(s)
    }
}

impl ArtifactRecord {
    /// The `artifact_record` event that points at this object: `url` is where the object can be opened,
    /// `host_name` the host that captured it. Serialises as one flat JSON object.
    #[must_use]
    pub fn to_event<'a>(&'a self, url: &'a str, host_name: &'a str) -> ArtifactEvent<'a> {
        ArtifactEvent { record: self, url, host_name }
    }
}

impl Flat for ConnectionEvent {
    fn attributes(&self, f: &mut dyn FnMut(&'static str, Value<'_>)) {
        let mut to = Sink(f);
        to.text("event.type", "connection");
        to.text("timestamp", &rfc3339(self.time_unix_ns));
        to.text("connection_id", &self.connection_id);
        to.text("endpoint_id", &self.endpoint_id);
        to.number("part", self.part);
        to.flag("finalized", self.finalized);
        to.text("created_at", &self.created_at);
        to.text("closed_at", &self.closed_at);
        to.text("direction", self.direction.as_str());
        to.text("socket_protocol", &self.socket_protocol);
        to.text("l7_protocol", &self.l7_protocol);
        to.text("tls_sni", &self.tls_sni);
        to.text("tls_alpn", &self.tls_alpn);
        to.text("tls_version", &self.tls_version);
        to.text("tls_cipher", &self.tls_cipher);
        to.text("tls_alpn_offered", &self.tls_alpn_offered);
        to.text("tls_plaintext", &self.tls_plaintext);
        to.text("tls_error", &self.tls_error);
        to.text("source_ip", &self.source_ip);
        to.number("source_port", self.source_port);
        to.text("destination_ip", &self.destination_ip);
        to.number("destination_port", self.destination_port);
        to.number("bytes_sent", self.bytes_sent);
        to.number("bytes_received", self.bytes_received);
        to.number("exchanges", self.exchanges);
        to.text("process_exe", &self.process_exe);
        to.number("process_pid", self.process_pid);
        to.text("process_unit", &self.process_unit);
        to.text("container_id", &self.container_id);
        to.text("host_name", &self.host_name);
    }
}

impl ConnectionEvent {
    /// The `connection` event as one flat JSON object.
    #[must_use]
    pub fn to_event(&self) -> impl Serialize + '_ {
        Object(self)
    }
}
