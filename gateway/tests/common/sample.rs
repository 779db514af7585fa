//! Made-up but realistic transactions, for the tests and for work on the pages (`examples/sample.rs`).

use transaction::{
    Level, Sealed, Transaction,
    id::id,
    object::{
        Body, Connection, Direction, End, Gap, Headers, Metadata, Process, Redaction, Request, Response, Seen, Timing,
    },
    seal,
    time::rfc3339,
};

/// What a sample is made of; the rest follows from it.
pub(crate) struct Sample<'a> {
    pub(crate) at_ns: u64,
    pub(crate) method: &'a str,
    pub(crate) host: &'a str,
    pub(crate) target: &'a str,
    pub(crate) status: Option<u16>,
    pub(crate) end: End,
    pub(crate) exe: &'a str,
    pub(crate) args: &'a [&'a str],
    pub(crate) level: Level,
    pub(crate) connection: &'a str,
    pub(crate) exchange: u64,
    pub(crate) request_headers: &'a [(&'a str, &'a str)],
    pub(crate) request_body: &'a [u8],
    pub(crate) response_headers: &'a [(&'a str, &'a str)],
    pub(crate) response_body: &'a [u8],
    pub(crate) parts_us: (u64, u64, u64),
}

impl Default for Sample<'_> {
    fn default() -> Self {
        Sample {
            at_ns: 1_790_000_000_000_000_000,
            method: "GET",
            host: "api.example:8080",
            target: "/v1/orders?page=2",
            status: Some(200),
            end: End::Client,
            exe: "/usr/bin/curl",
            args: &["curl", "-sS", "http://api.example:8080/v1/orders?page=2"],
            level: Level::Full,
            connection: "c1",
            exchange: 0,
            request_headers: &[("Host", "api.example:8080"), ("User-Agent", "curl/7.88.1"), ("Accept", "*/*")],
            request_body: b"",
            response_headers: &[("Content-Type", "application/json"), ("Server", "nginx/1.22.1")],
            response_body: b"{\"ok\":true}",
            parts_us: (40, 1_900, 260),
        }
    }
}

fn owned(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}

fn field(list: &[(&str, &str)], name: &str) -> String {
    list.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| (*v).to_owned()).unwrap_or_default()
}

fn seen(headers: &[(&str, &str)], body: &[u8], kept: bool) -> Seen {
    let head = headers.iter().map(|(n, v)| n.len() + v.len() + 4).sum::<usize>() + 40;
    Seen {
        head_bytes: head as u64,
        body_bytes: body.len() as u64,
        kept_bytes: if kept { body.len() as u64 } else { 0 },
        end: if body.is_empty() { "none" } else { "length" }.to_owned(),
        truncated: if kept || body.is_empty() { Vec::new() } else { vec!["level".to_owned()] },
        ..Seen::default()
    }
}

impl Sample<'_> {
    /// The transaction.
    pub(crate) fn transaction(&self) -> Transaction {
        let (headers, bodies) = (self.level >= Level::Headers, self.level >= Level::Full);
        let list = |l: &[(&str, &str)]| if headers { owned(l) } else { Vec::new() };
        let body = |b: &[u8]| Body(if bodies { b.to_vec() } else { Vec::new() });
        let ns = 1000;
        let (request, wait, response) = (self.parts_us.0 * ns, self.parts_us.1 * ns, self.parts_us.2 * ns);
        let total = request + wait + response;
        let sent = seen(self.request_headers, self.request_body, bodies);
        let received = seen(self.response_headers, self.response_body, bodies);
        let (out, back) = (sent.head_bytes + sent.body_bytes, received.head_bytes + received.body_bytes);
        let client = self.end == End::Client;
        let exchange = self.exchange.to_string();
        let parts: [&[u8]; 3] = [self.connection.as_bytes(), exchange.as_bytes(), &self.at_ns.to_le_bytes()];
        let mut t = Transaction {
            metadata: Metadata {
                process_id: "4711".to_owned(),
                process_exe: self.exe.to_owned(),
                bytes_sent: if client { out } else { back },
                bytes_received: if client { back } else { out },
                request_id: id(&[parts[0], parts[1], parts[2], self.end.as_str().as_bytes()]),
                connection_id: id(&[parts[0], self.end.as_str().as_bytes()]),
                endpoint_id: self.host.to_owned(),
                host_name: "build-7".to_owned(),
                ..Metadata::default()
            },
            request: Some(Request {
                method: self.method.to_owned(),
                url: format!("http://{}{}", self.host, self.target),
                scheme: "http".to_owned(),
                path: self.target.split('?').next().unwrap_or_default().to_owned(),
                authority: self.host.to_owned(),
                protocol: "http1".to_owned(),
                version: "HTTP/1.1".to_owned(),
                user_agent: field(self.request_headers, "user-agent"),
                content_type: field(self.request_headers, "content-type"),
                headers: Headers(list(self.request_headers)),
                header_list: list(self.request_headers),
                body: body(self.request_body),
                ..Request::default()
            }),
            response: self.status.map(|status| Response {
                status,
                reason: match status {
                    200 => "OK",
                    201 => "Created",
                    302 => "Found",
                    404 => "Not Found",
                    503 => "Service Unavailable",
                    _ => "",
                }
                .to_owned(),
                version: "HTTP/1.1".to_owned(),
                content_type: field(self.response_headers, "content-type"),
                headers: Headers(list(self.response_headers)),
                header_list: list(self.response_headers),
                body: body(self.response_body),
                ..Response::default()
            }),
            transaction_time: rfc3339(self.at_ns),
            duration_ms: transaction::time::millis(total),
            direction: if client { Direction::EgressInternal } else { Direction::Ingress },
            end: self.end,
            level: self.level,
            exchange_id: id(&[parts[0], parts[1], parts[2]]),
            timing: Timing {
                request_ns: Some(request),
                ttfb_ns: self.status.map(|_| request + wait),
                response_ns: self.status.map(|_| response),
                total_ns: total,
            },
            process: Process {
                pid: 4711,
                started: rfc3339(self.at_ns - 4_000_000_000),
                exe: self.exe.to_owned(),
                args: self.args.iter().map(|a| (*a).to_owned()).collect(),
                user: "ann".to_owned(),
                uid: Some(1000),
                unit: if client { "session-3.scope" } else { "nginx.service" }.to_owned(),
                parent_pid: Some(1200),
                parent_exe: "/bin/bash".to_owned(),
                ..Process::default()
            },
            connection: Connection {
                local: if client { "10.0.3.7:51544" } else { "10.0.3.9:8080" }.to_owned(),
                remote: if client { "10.0.3.9:8080" } else { "10.0.3.7:51544" }.to_owned(),
                source: "edge".to_owned(),
                from_start: true,
                exchange: self.exchange,
            },
            ..Transaction::default()
        };
        t.completeness.complete = self.status.is_some();
        t.completeness.request = sent;
        t.completeness.response = received;
        if self.status.is_none() {
            t.error_type = Some("connection_closed".to_owned());
        }
        t
    }
}

const ORDER: &str = r#"{"id":"ord_7f3a","customer":{"id":18231,"name":"Zoë Meyer","email":"[masked]","address":{"street":"12 Mill Lane","city":"Leeds","geo":[53.8008,-1.5491]}},"items":[{"sku":"BK-2210","title":"Wire <formats> & other stories","qty":1,"price":18.50},{"sku":"MG-0007","title":"Mug","qty":2,"price":7.00}],"total":32.50,"paid":true,"coupon":null}"#;

/// A host's quarter of an hour, ending at `now_ns`; oldest first.
pub(crate) fn day(now_ns: u64) -> Vec<Sealed> {
    const S: u64 = 1_000_000_000;
    let json = &[
        ("Server", "nginx/1.22.1"),
        ("Date", "Sat, 21 Nov 2026 11:40:00 GMT"),
        ("Content-Type", "application/json; charset=utf-8"),
        ("Content-Length", "384"),
        ("Set-Cookie", "session=[masked]; Path=/; HttpOnly"),
        ("Set-Cookie", "region=eu-west; Path=/"),
        ("X-Request-Id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
    ];
    let asked = &[
        ("Host", "shop.internal:8080"),
        ("User-Agent", "python-requests/2.31.0"),
        ("Accept", "application/json"),
        ("Accept-Encoding", "gzip, deflate"),
        ("Authorization", "[masked]"),
        ("Cookie", "[masked]"),
    ];
    let posted = &[
        ("Host", "shop.internal:8080"),
        ("User-Agent", "python-requests/2.31.0"),
        ("Content-Type", "application/json"),
        ("Authorization", "[masked]"),
        ("Content-Length", "52"),
    ];
    let python: Sample<'_> = Sample {
        host: "shop.internal:8080",
        exe: "/usr/bin/python3.11",
        args: &["python3", "/srv/checkout/worker.py", "--queue", "orders"],
        request_headers: asked,
        response_headers: json,
        response_body: ORDER.as_bytes(),
        connection: "pool-1",
        ..Sample::default()
    };
    let mut list = Vec::new();
    for i in 0..40u64 {
        let at_ns = now_ns - (900 - i * 22) * S - i * 7_123_457;
        let target = format!("/v1/orders/ord_{:04x}?expand=customer,items&lang=en", 0x7f3a + i * 13);
        let mut client = Sample { at_ns, target: &target, exchange: i, ..python };
        match i % 8 {
            1 => {
                client.status = Some(404);
                client.response_body = br#"{"error":"no such order","code":404}"#;
            }
            3 => {
                client.method = "POST";
                client.target = "/v1/orders";
                client.status = Some(201);
                client.request_headers = posted;
                client.request_body = br#"{"sku":"BK-2210","qty":1,"card":{"number":"[masked]"}}"#;
                client.parts_us = (120, 48_300, 410);
            }
            5 => {
                client.status = Some(503);
                client.response_headers = &[("Content-Type", "text/html"), ("Retry-After", "5")];
                client.response_body =
                    b"<html><head><title>503</title></head>\n<body><h1>Service Unavailable</h1></body></html>\n";
                client.parts_us = (60, 2_004_000, 90);
            }
            6 => {
                client.host = "169.254.169.254";
                client.target = "/latest/meta-data/iam/security-credentials/";
                client.exe = "/usr/bin/node";
                client.level = Level::Summary;
                client.connection = "meta";
            }
            7 => {
                client.host = "updates.example.org";
                client.target = "/dists/stable/InRelease";
                client.exe = "/usr/lib/apt/methods/http";
                client.connection = "apt";
                client.response_headers = &[("Content-Type", "application/octet-stream"), ("Content-Length", "48213")];
                client.response_body = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0xed, 0x9d, b'<', b'>', 0x5b, 0x73];
                client.parts_us = (30, 21_400, 88_000);
            }
            _ => {}
        }
        if i == 36 {
            client.status = None;
            client.parts_us = (80, 30_000_000, 0);
        }
        let mut t = client.transaction();
        if i % 8 == 3 {
            t.redactions = vec![
                redaction("request.header.Authorization"),
                redaction("request.body.json.card.number"),
                redaction("response.header.Set-Cookie"),
            ];
        }
        if i == 35 {
            t.completeness.complete = false;
            t.completeness.response.gaps = vec![Gap { offset: 131_072, bytes: 24_576, cause: "ring".to_owned() }];
            t.completeness.response.truncated = vec!["gap".to_owned()];
            t.completeness.response.body_bytes = 1_048_576;
            t.completeness.response.kept_bytes = 131_072;
        }
        let both = !matches!(i % 8, 6 | 7) && i != 36;
        if both {
            let server =
                Sample { end: End::Server, exe: "/usr/sbin/nginx", args: &["nginx: worker process"], ..client };
            let mut s = server.transaction();
            s.redactions.clone_from(&t.redactions);
            list.push(seal(&s, at_ns + 90_000));
        }
        list.push(seal(&t, at_ns));
    }
    list
}

fn redaction(place: &str) -> Redaction {
    Redaction { place: place.to_owned(), action: "mask".to_owned(), count: 1 }
}
