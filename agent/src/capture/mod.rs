//! An exchange as seen on the wire becomes a transaction: level, content decoding, redaction, object.
//!
//! In: [`Exchange`]s of `http`, and a [`Context`] that says whose they are. Out: the object's exact bytes and
//! the record that points at them ([`Kept`]). Called by `pipeline`'s workers. Pure: no I/O and no clock; what
//! is secret is replaced here, before anything is stored.

mod address;
mod body;
mod decode;
mod head;
mod outcome;
mod redact;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use transaction::{
    Level, Sealed, Transaction,
    object::{self, Completeness, Connection, Direction, End, Interim, Metadata, Process, Request, Response, Tls},
};

use self::{
    head::Fields,
    redact::{Redactor, Tally},
};
use crate::http::{Exchange, Message};

/// Whose exchange it is, and how its times are to be read.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The observed process.
    pub process: &'a Process,
    /// Name of this host.
    pub host_name: &'a str,
    /// Address of the observed end.
    pub local: SocketAddr,
    /// Address of the other end.
    pub remote: SocketAddr,
    /// Which end of the connection was observed.
    pub end: End,
    /// Direction, seen from the observed process.
    pub direction: Direction,
    /// Identifier of the socket.
    pub connection_id: &'a str,
    /// The same at both local ends of the exchange.
    pub exchange_id: &'a str,
    /// The connection was seen from its opening.
    pub from_start: bool,
    /// Where the bytes were read: `edge`, `openssl` and so on.
    pub source: &'static str,
    /// TLS as negotiated; `None` on cleartext.
    pub tls: Option<&'a Tls>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// What to add to the kernel's monotonic nanoseconds to get nanoseconds since 1970.
    pub unix_offset_ns: i64,
    /// Container's name, or empty.
    pub container_name: &'a str,
    /// Container's image, or empty.
    pub container_image: &'a str,
    /// Pod's name, or empty.
    pub pod_name: &'a str,
    /// Pod's namespace, or empty.
    pub pod_namespace: &'a str,
    /// `key:value` tags.
    pub tags: &'a [String],
}

/// What became of an exchange.
#[expect(
    clippy::large_enum_variant,
    reason = "made once an exchange and moved at once; a box would be one more allocation"
)]
#[derive(Clone, Debug)]
pub enum Kept {
    /// An object and its record, for the archive.
    Object(Sealed),
    /// A `User-Agent` of `tapstack/…`: our own traffic, to be counted and dropped.
    Own,
    /// The level says that nothing is kept.
    Nothing,
}

/// Makes transactions of exchanges at one level. Holds no state of connections: one serves every worker.
#[derive(Clone, Debug)]
pub struct Capture {
    level: Level,
    redactor: Redactor,
}

impl Capture {
    /// Keeps exchanges at this level, with the default redaction.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Capture { level, redactor: Redactor::new() }
    }

    /// Redacts `exchange` and makes the object of it.
    #[must_use]
    pub fn keep(&self, exchange: &Exchange, context: &Context<'_>) -> Kept {
        if exchange.request.as_ref().is_some_and(is_own) {
            return Kept::Own;
        }
        if self.level == Level::None {
            return Kept::Nothing;
        }
        let first = exchange.request.as_ref().or(exchange.response.as_ref());
        let time_unix_ns = first.map_or(0, |m| unix(m.first_ns, context.unix_offset_ns));
        let transaction = self.transaction(exchange, context, time_unix_ns);
        Kept::Object(transaction::seal(&transaction, time_unix_ns))
    }

    fn transaction(&self, exchange: &Exchange, context: &Context<'_>, time_unix_ns: u64) -> Transaction {
        let mut tally = Tally::default();
        let (request, request_seen) = match &exchange.request {
            Some(message) => {
                let (request, seen) = self.request(message, context, &mut tally);
                (Some(request), seen)
            }
            None => (None, outcome::unseen()),
        };
        let (response, response_seen) = match &exchange.response {
            Some(message) => {
                let (response, seen) = self.response(message, exchange, &mut tally);
                (Some(response), seen)
            }
            None => (None, outcome::unseen()),
        };
        let mut notes: Vec<String> = exchange.notes.iter().map(|note| note.as_str().to_owned()).collect();
        if exchange.request.as_ref().is_some_and(|m| address::host(&m.head).is_none()) {
            notes.push("no-host".to_owned());
        }
        let timing = outcome::timing(exchange);
        let wire = |message: &Option<Message>| message.as_ref().map_or(0, |m| m.wire_bytes);
        let (sent, received) = match context.end {
            End::Client => (wire(&exchange.request), wire(&exchange.response)),
            End::Server => (wire(&exchange.response), wire(&exchange.request)),
        };
        let process = self.process(context.process, &mut tally);
        Transaction {
            metadata: Metadata {
                process_id: process.pid.to_string(),
                process_exe: process.exe.clone(),
                container_name: context.container_name.to_owned(),
                container_image: context.container_image.to_owned(),
                pod_name: context.pod_name.to_owned(),
                pod_namespace: context.pod_namespace.to_owned(),
                bytes_sent: sent,
                bytes_received: received,
                request_id: transaction::id::id(&[context.connection_id.as_bytes(), &exchange.number.to_le_bytes()]),
                connection_id: context.connection_id.to_owned(),
                endpoint_id: endpoint(request.as_ref(), context),
                tags: context.tags.to_vec(),
                host_name: context.host_name.to_owned(),
            },
            request,
            response,
            transaction_time: transaction::time::rfc3339(time_unix_ns),
            duration_ms: transaction::time::millis(timing.total_ns),
            direction: context.direction,
            end: context.end,
            level: self.level,
            rule: None,
            exchange_id: context.exchange_id.to_owned(),
            error_type: outcome::error_type(exchange).map(str::to_owned),
            timing,
            completeness: Completeness {
                complete: outcome::complete(exchange, &request_seen, &response_seen),
                request: request_seen,
                response: response_seen,
                notes,
            },
            process,
            connection: Connection {
                local: context.local.to_string(),
                remote: context.remote.to_string(),
                source: context.source.to_owned(),
                from_start: context.from_start,
                exchange: exchange.number,
            },
            tls: context.tls.cloned(),
            redactions: tally.into_list(),
        }
    }

    fn request(&self, message: &Message, context: &Context<'_>, tally: &mut Tally) -> (Request, object::Seen) {
        let server = match context.end {
            End::Client => context.remote,
            End::Server => context.local,
        };
        let head = &message.head;
        let address = address::of(head, context.scheme, server, &self.redactor, tally);
        let mut fields = Fields::new(head, "request", &self.redactor, tally);
        let (body, seen) = body::keep(message, "request", self.level, &self.redactor, tally);
        let method = head::text(&head.method).into_owned();
        let mut request = Request {
            request_id: fields.value("x-request-id"),
            user_agent: fields.value("user-agent"),
            content_type: fields.value("content-type"),
            scheme: context.scheme.to_owned(),
            protocol: head::protocol(head.version).to_owned(),
            version: head::version(head.version).to_owned(),
            body,
            ..Request::default()
        };
        if self.level >= Level::Headers {
            request.headers = fields.joined([
                (":authority", address.authority.as_str()),
                (":method", method.as_str()),
                (":path", address.target.as_str()),
                (":scheme", context.scheme),
            ]);
            request.header_list = fields.into_list();
            request.trailer_list = head::list(&message.trailers, "request", &self.redactor, tally);
        }
        request.url = address.url;
        request.path = address.path;
        request.authority = address.authority;
        request.method = method;
        (request, seen)
    }

    fn response(&self, message: &Message, exchange: &Exchange, tally: &mut Tally) -> (Response, object::Seen) {
        let head = &message.head;
        let mut fields = Fields::new(head, "response", &self.redactor, tally);
        let (body, seen) = body::keep(message, "response", self.level, &self.redactor, tally);
        let mut response = Response {
            status: head.status,
            reason: self.redactor.text(&head::text(&head.target), "response", "reason", tally),
            version: head::version(head.version).to_owned(),
            content_type: fields.value("content-type"),
            body,
            ..Response::default()
        };
        if self.level >= Level::Headers {
            response.headers = fields.joined([(":status", head.status.to_string().as_str())]);
            response.header_list = fields.into_list();
            response.trailer_list = head::list(&message.trailers, "response", &self.redactor, tally);
            let interim = exchange.interim.iter().map(|head| Interim {
                status: head.status,
                header_list: head::list(&head.fields, "response.interim", &self.redactor, tally),
            });
            response.interim = interim.collect();
        }
        (response, seen)
    }

    /// The process with its arguments redacted.
    fn process(&self, process: &Process, tally: &mut Tally) -> Process {
        let mut process = process.clone();
        self.redactor.arguments(&mut process.args, tally);
        process
    }
}

/// The host that was asked for, without its port, or the other end's address.
fn endpoint(request: Option<&Request>, context: &Context<'_>) -> String {
    match request.map(|r| address::without_port(&r.authority)) {
        Some(host) if !host.is_empty() => host.to_owned(),
        _ => context.remote.ip().to_string(),
    }
}

/// Whether a request comes from this product: agents, gateway and forwarders all say so in `User-Agent`.
fn is_own(request: &Message) -> bool {
    request.head.get("user-agent").is_some_and(|agent| agent.starts_with(b"tapstack/"))
}

/// Nanoseconds since 1970 of a kernel time.
fn unix(kernel_ns: u64, offset: i64) -> u64 {
    kernel_ns.saturating_add_signed(offset)
}
