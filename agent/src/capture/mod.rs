//! An exchange as seen on the wire becomes a transaction: level, content decoding, redaction, object.
//!
//! In: [`Exchange`]s of `http`, a [`Context`] of each, and whose its ends are ([`Observed`]). Out: for each end
//! the object's exact bytes and the record that points at them ([`Sealed`]). Called by `pipeline`'s workers.
//! Pure: no I/O and no clock; what is secret is replaced here, before anything is stored. What both ends of an
//! exchange share is redacted and written once ([`Prepared`]), what a process is once a process.

mod address;
mod body;
mod decode;
mod head;
mod outcome;
mod process;
mod redact;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use transaction::{
    Level, Sealed,
    object::{
        self, Completeness, Connection, Direction, End, Interim, Metadata, Process, Redaction, Request, Response, Tls,
    },
    seal::{self, Common, Shared},
};

use self::{
    head::Fields,
    process::Processes,
    redact::{MOST_PLACES, Redactor, Tally},
};
use crate::http::{Exchange, Message};

/// What holds for both ends of an exchange, and how its times are to be read.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Name of this host.
    pub host_name: &'a str,
    /// Address of the end that answers.
    pub server: SocketAddr,
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
}

/// One end of an exchange, and whose it is.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The observed process.
    pub process: &'a Process,
    /// Address of the observed end, when its socket is known.
    pub local: Option<SocketAddr>,
    /// Address of the other end.
    pub remote: Option<SocketAddr>,
    /// Which end of the connection was observed.
    pub end: End,
    /// Direction, seen from the observed process.
    pub direction: Direction,
    /// Identifier of the socket.
    pub connection_id: &'a str,
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

/// Why nothing is kept of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unkept {
    /// A `User-Agent` of `tapstack/…`: our own traffic, to be counted and dropped.
    Own,
    /// The level says so.
    Level,
}

/// Makes transactions of exchanges at one level. Holds no state of connections: one serves every worker.
#[derive(Clone, Debug)]
pub struct Capture {
    level: Level,
    redactor: Redactor,
    processes: Arc<Processes>,
}

/// Text of an exchange: as it came, unless something in it was replaced.
type Text<'a> = Cow<'a, str>;

impl Capture {
    /// Keeps exchanges at this level, with the default redaction.
    #[must_use]
    pub fn new(level: Level) -> Self {
        Capture::with(level, Redactor::new())
    }

    fn with(level: Level, redactor: Redactor) -> Self {
        Capture { level, redactor, processes: Arc::new(Processes::new()) }
    }

    /// Redacts `exchange` and writes what stands in the object of either end; [`Prepared::keep`] adds the rest.
    pub fn prepare<'a>(&'a self, exchange: &Exchange, context: &Context<'a>) -> Result<Prepared<'a>, Unkept> {
        if exchange.request.as_ref().is_some_and(is_own) {
            return Err(Unkept::Own);
        }
        if self.level == Level::None {
            return Err(Unkept::Level);
        }
        let mut tally = Tally::default();
        let (request, response) = (exchange.request.as_ref(), exchange.response.as_ref());
        // What is borrowed from by the messages below.
        let address = request.map(|m| address::of(&m.head, context.scheme, context.server, &self.redactor, &mut tally));
        let asked = request.map(|m| Fields::new(&m.head, "request", &self.redactor, &mut tally));
        let request = request.zip(address.as_ref()).zip(asked.as_ref());
        let request = request.map(|((m, address), fields)| self.request(m, address, fields, context, &mut tally));
        let answered = response.map(|m| Fields::new(&m.head, "response", &self.redactor, &mut tally));
        let status = response.map(|m| m.head.status.to_string()).unwrap_or_default();
        let response = response.zip(answered.as_ref());
        let response = response.map(|(m, fields)| self.response(m, fields, &status, exchange, &mut tally));
        let (request, request_seen) = request.unzip();
        let (response, response_seen) = response.unzip();
        let (request_seen, response_seen) =
            (request_seen.unwrap_or_else(outcome::unseen), response_seen.unwrap_or_else(outcome::unseen));
        let mut notes: Vec<Text<'_>> = exchange.notes.iter().map(|note| note.as_str().into()).collect();
        if address.as_ref().is_some_and(|address| !address.named) {
            notes.push("no-host".into());
        }
        let first = exchange.request.as_ref().or(exchange.response.as_ref());
        let time_unix_ns = first.map_or(0, |m| unix(m.first_ns, context.unix_offset_ns));
        let timing = outcome::timing(exchange);
        let common = Common::new(&Shared {
            time_unix_ns,
            request: request.as_ref(),
            response: response.as_ref(),
            transaction_time: &transaction::time::rfc3339(time_unix_ns),
            duration_ms: transaction::time::millis(timing.total_ns),
            level: self.level,
            rule: None,
            exchange_id: context.exchange_id,
            error_type: outcome::error_type(exchange),
            timing,
            completeness: &Completeness {
                complete: outcome::complete(exchange, &request_seen, &response_seen),
                request: request_seen,
                response: response_seen,
                notes,
            },
            tls: context.tls,
        });
        let wire = |message: &Option<Message>| message.as_ref().map_or(0, |m| m.wire_bytes);
        Ok(Prepared {
            capture: self,
            context: *context,
            common,
            tally,
            asked_bytes: wire(&exchange.request),
            answered_bytes: wire(&exchange.response),
            number: exchange.number,
        })
    }

    fn request<'a>(
        &self,
        message: &'a Message,
        address: &'a address::Address<'_>,
        fields: &'a Fields<'_>,
        context: &Context<'_>,
        tally: &mut Tally,
    ) -> (Request<Text<'a>, Cow<'a, [u8]>>, object::Seen<Text<'a>>) {
        let head = &message.head;
        let (body, seen) = body::keep(message, "request", self.level, &self.redactor, tally);
        let method = head::text(&head.method);
        let mut request: Request<Text<'a>, Cow<'a, [u8]>> = Request {
            url: address.url.as_str().into(),
            path: address.path.as_str().into(),
            authority: Cow::Borrowed(&*address.authority),
            request_id: fields.value("x-request-id").into(),
            user_agent: fields.value("user-agent").into(),
            content_type: fields.value("content-type").into(),
            scheme: context.scheme.into(),
            protocol: head::protocol(head.version).into(),
            version: head::version(head.version).into(),
            body,
            ..Request::default()
        };
        if self.level >= Level::Headers {
            request.headers = fields.joined([
                (":authority", Cow::Borrowed(&*address.authority)),
                (":method", method.clone()),
                (":path", Cow::Borrowed(&*address.target)),
                (":scheme", context.scheme.into()),
            ]);
            request.header_list = fields.list();
            request.trailer_list = head::list(&message.trailers, "request", &self.redactor, tally);
        }
        request.method = method;
        (request, seen)
    }

    fn response<'a>(
        &self,
        message: &'a Message,
        fields: &'a Fields<'_>,
        status: &'a str,
        exchange: &'a Exchange,
        tally: &mut Tally,
    ) -> (Response<Text<'a>, Cow<'a, [u8]>>, object::Seen<Text<'a>>) {
        let head = &message.head;
        let (body, seen) = body::keep(message, "response", self.level, &self.redactor, tally);
        let mut response = Response {
            status: head.status,
            reason: self.redactor.text(head::text(&head.target), "response", "reason", tally),
            version: head::version(head.version).into(),
            content_type: fields.value("content-type").into(),
            body,
            ..Response::default()
        };
        if self.level >= Level::Headers {
            response.headers = fields.joined([(":status", status.into())]);
            response.header_list = fields.list();
            response.trailer_list = head::list(&message.trailers, "response", &self.redactor, tally);
            let interim = exchange.interim.iter().map(|head| Interim {
                status: head.status,
                header_list: head::list(&head.fields, "response.interim", &self.redactor, tally),
            });
            response.interim = interim.collect();
        }
        (response, seen)
    }
}

/// An exchange of which everything is written that does not depend on the end.
#[derive(Debug)]
pub struct Prepared<'a> {
    capture: &'a Capture,
    context: Context<'a>,
    common: Common,
    tally: Tally,
    /// Bytes of the messages on the wire.
    asked_bytes: u64,
    answered_bytes: u64,
    number: u64,
}

impl Prepared<'_> {
    /// The object and the record of one end.
    #[must_use]
    pub fn keep(&self, observed: &Observed<'_>) -> Sealed {
        let Prepared { capture, context, common, .. } = self;
        let process = observed.process;
        let shown = capture.processes.show(process, &capture.redactor);
        let (bytes_sent, bytes_received) = match observed.end {
            End::Client => (self.asked_bytes, self.answered_bytes),
            End::Server => (self.answered_bytes, self.asked_bytes),
        };
        // As long as there is room for both lists, one after the other is what one tally would have.
        let together: Vec<Redaction>;
        let redactions: Vec<&Redaction> = if self.tally.list().len() + shown.redactions.len() <= MOST_PLACES {
            self.tally.list().iter().chain(&shown.redactions).collect()
        } else {
            let mut tally = self.tally.clone();
            capture.redactor.arguments(&mut process.args.clone(), &mut tally);
            together = tally.into_list();
            together.iter().collect()
        };
        let request_id = transaction::id::id(&[observed.connection_id.as_bytes(), &self.number.to_le_bytes()]);
        let host = address::without_port(common.authority());
        let endpoint = if host.is_empty() {
            Cow::Owned(observed.remote.map(|a| a.ip().to_string()).unwrap_or_default())
        } else {
            host.into()
        };
        common.seal(seal::Observed {
            metadata: &Metadata {
                process_id: process.pid.to_string().as_str(),
                process_exe: &process.exe,
                container_name: observed.container_name,
                container_image: observed.container_image,
                pod_name: observed.pod_name,
                pod_namespace: observed.pod_namespace,
                bytes_sent,
                bytes_received,
                request_id: &request_id,
                connection_id: observed.connection_id,
                endpoint_id: &endpoint,
                tags: observed.tags.iter().map(String::as_str).collect(),
                host_name: context.host_name,
            },
            direction: observed.direction,
            end: observed.end,
            process,
            shown: &shown.written,
            connection: &Connection {
                local: observed.local.map(address::socket).unwrap_or_default().as_str(),
                remote: &observed.remote.map(address::socket).unwrap_or_default(),
                source: context.source,
                from_start: context.from_start,
                exchange: self.number,
            },
            redactions,
        })
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
