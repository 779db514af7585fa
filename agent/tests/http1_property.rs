//! What holds for every exchange however its bytes arrive.

use std::sync::Arc;

use agent::flow::Budget;
use agent::http::{Connection, Exchange, GapCause, Limits, Message, Output, Side};
use proptest::prelude::*;
use proptest::sample::Index;

#[derive(Clone, Copy, Debug)]
enum Frame {
    None,
    Length,
    Chunked,
}

#[derive(Clone, Debug)]
struct Model {
    head: bool,
    ask: (Frame, Vec<u8>),
    tell: (Frame, Vec<u8>),
    interim: u8,
    empty_lines: u8,
    chunk: usize,
    bare: bool,
}

fn frame() -> impl Strategy<Value = (Frame, Vec<u8>)> {
    let kind = prop_oneof![Just(Frame::None), Just(Frame::Length), Just(Frame::Chunked)];
    // Bodies made of what framing is made of, too.
    let body = proptest::collection::vec(any::<u8>(), 0..60);
    (
        kind,
        body.prop_map(|body| {
            body.iter().map(|b| if *b < 128 { b"\r\n0 H:1/"[usize::from(*b) % 8] } else { *b }).collect()
        }),
    )
}

fn model() -> impl Strategy<Value = Model> {
    (prop::bool::weighted(0.2), frame(), frame(), 0..3u8, 0..2u8, 1..20usize, prop::bool::weighted(0.1)).prop_map(
        |(head, ask, tell, interim, empty_lines, chunk, bare)| Model {
            head,
            ask,
            tell,
            interim,
            empty_lines,
            chunk,
            bare,
        },
    )
}

/// The whole message on the wire; `framing`: whether the head may say how long the body is, `body`: send it.
fn wire(start: &str, frame: &(Frame, Vec<u8>), model: &Model, body: bool) -> Vec<u8> {
    let end = if model.bare { "\n" } else { "\r\n" };
    let framing = match frame.0 {
        Frame::None => String::new(),
        Frame::Length => format!("Content-Length: {}{end}", frame.1.len()),
        Frame::Chunked => format!("Transfer-Encoding: chunked{end}"),
    };
    let mut bytes = format!("{start}{end}X-Test: yes{end}{framing}{end}").into_bytes();
    if !body {
        return bytes;
    }
    match frame.0 {
        Frame::None => {}
        Frame::Length => bytes.extend(&frame.1),
        Frame::Chunked => {
            for chunk in frame.1.chunks(model.chunk) {
                bytes.extend(format!("{:x};e=1{end}", chunk.len()).bytes());
                bytes.extend(chunk);
                bytes.extend(end.bytes());
            }
            bytes.extend(format!("0{end}T: 1{end}{end}").bytes());
        }
    }
    bytes
}

impl Model {
    fn ask_wire(&self, n: usize) -> Vec<u8> {
        let mut bytes = b"\r\n".repeat(usize::from(self.empty_lines));
        let method = if self.head { "HEAD" } else { "POST" };
        bytes.extend(wire(&format!("{method} /{n} HTTP/1.1"), &self.ask, self, true));
        bytes
    }

    fn tell_wire(&self, n: usize) -> Vec<u8> {
        let mut bytes = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".repeat(usize::from(self.interim));
        let status = if matches!(self.tell.0, Frame::None) { 204 } else { 200 };
        bytes.extend(wire(&format!("HTTP/1.1 {status} {n}"), &self.tell, self, !self.head));
        bytes
    }

    fn body(frame: &(Frame, Vec<u8>)) -> &[u8] {
        if matches!(frame.0, Frame::None) { &[] } else { &frame.1 }
    }

    fn tell_body(&self) -> &[u8] {
        if self.head { &[] } else { Self::body(&self.tell) }
    }
}

/// A run of bytes of one side that pass the hook at one time.
type Run = (Side, u64, Vec<u8>);

/// Requests of a burst are sent together, then they are answered together.
fn runs(bursts: &[Vec<Model>]) -> Vec<Run> {
    let mut n = 0;
    let mut runs = Vec::new();
    for (burst, models) in bursts.iter().enumerate() {
        let (mut ask, mut tell) = (Vec::new(), Vec::new());
        for model in models {
            ask.extend(model.ask_wire(n));
            tell.extend(model.tell_wire(n));
            n += 1;
        }
        runs.push((Side::A, burst as u64 * 20 + 10, ask));
        runs.push((Side::B, burst as u64 * 20 + 20, tell));
    }
    runs
}

#[derive(Clone, Debug)]
struct Piece {
    side: Side,
    ns: u64,
    offset: u64,
    bytes: Vec<u8>,
    lost: bool,
}

/// Cuts runs into pieces of the given lengths (used in turn).
fn pieces(runs: &[Run], lengths: &[usize]) -> Vec<Piece> {
    let mut lengths = lengths.iter().cycle();
    let mut at = [0u64; 2];
    let mut pieces = Vec::new();
    for (side, ns, bytes) in runs {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (one, two) = rest.split_at((*lengths.next().unwrap()).clamp(1, rest.len()));
            let at = &mut at[*side as usize];
            pieces.push(Piece { side: *side, ns: *ns, offset: *at, bytes: one.to_vec(), lost: false });
            *at += one.len() as u64;
            rest = two;
        }
    }
    pieces
}

/// Merges the two sides in an order given by `choices`, each side in its own order.
fn interleave(pieces: Vec<Piece>, choices: &[bool]) -> Vec<Piece> {
    let (a, b): (Vec<_>, Vec<_>) = pieces.into_iter().partition(|piece| piece.side == Side::A);
    let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
    let mut choices = choices.iter().cycle();
    let mut merged = Vec::new();
    loop {
        let first =
            if *choices.next().unwrap() { a.next().or_else(|| b.next()) } else { b.next().or_else(|| a.next()) };
        let Some(piece) = first else { return merged };
        merged.push(piece);
    }
}

fn feed(pieces: &[Piece], budget: &Arc<Budget>) -> Vec<Exchange> {
    let mut connection = Connection::new(Limits::default(), Arc::clone(budget));
    let mut out = Vec::new();
    for piece in pieces {
        if piece.lost {
            connection.gap(piece.side, piece.offset, piece.bytes.len() as u64, GapCause::Ring, &mut out);
        } else {
            connection.data(piece.side, piece.offset, &piece.bytes, piece.ns, &mut out);
        }
    }
    connection.close(u64::MAX, &mut out);
    out.into_iter()
        .map(|output| match output {
            Output::Exchange(exchange) => *exchange,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// The number that the generator gave to a message.
fn number(text: &[u8]) -> usize {
    let text = String::from_utf8_lossy(text);
    text.trim_start_matches('/').parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
}

/// Numbers of request and response of each exchange.
fn summary(exchanges: &[Exchange]) -> Vec<(Option<usize>, Option<usize>)> {
    let of = |message: &Option<Message>| message.as_ref().map(|m| number(&m.head.target));
    exchanges.iter().map(|exchange| (of(&exchange.request), of(&exchange.response))).collect()
}

fn check_message(message: &Message, body: &[u8]) -> Result<(), TestCaseError> {
    // Every kept byte stands where it belongs, with the gaps around it.
    let mut at = 0;
    let mut kept = message.body.as_slice();
    for (offset, len, _) in &message.gaps {
        let whole = (*offset as usize).saturating_sub(at);
        prop_assert!(kept.len() >= whole, "gap beyond what was kept");
        prop_assert_eq!(&kept[..whole], &body[at..at + whole]);
        kept = &kept[whole..];
        at = (at + whole + *len as usize).min(body.len());
    }
    prop_assert!(body[at..].starts_with(kept), "at {at}: {message:?}");
    if message.ended && message.gaps.is_empty() {
        prop_assert_eq!(&message.body, body);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_split_and_interleaving_gives_the_same_exchanges(
        bursts in prop::collection::vec(prop::collection::vec(model(), 1..4), 1..5),
        lengths in prop::collection::vec(1..60usize, 1..12),
        choices in prop::collection::vec(any::<bool>(), 1..24),
    ) {
        let budget = Budget::new(Budget::DEFAULT);
        let runs = runs(&bursts);
        let expected = feed(&pieces(&runs, &[usize::MAX]), &budget);
        let models: Vec<&Model> = bursts.iter().flatten().collect();
        prop_assert_eq!(expected.len(), models.len());
        for (n, (exchange, model)) in expected.iter().zip(&models).enumerate() {
            let (ask, tell) = (exchange.request.as_ref().unwrap(), exchange.response.as_ref().unwrap());
            prop_assert_eq!((number(&ask.head.target), number(&tell.head.target)), (n, n));
            prop_assert_eq!(&ask.body, Model::body(&model.ask));
            prop_assert_eq!(&tell.body, model.tell_body());
            prop_assert_eq!(exchange.interim.len(), usize::from(model.interim));
            prop_assert!(ask.ended && tell.ended && ask.gaps.is_empty() && tell.gaps.is_empty());
        }
        let split = feed(&interleave(pieces(&runs, &lengths), &choices), &budget);
        prop_assert_eq!(split, expected);
        prop_assert_eq!(budget.used(), 0);
    }

    #[test]
    fn lost_pieces_never_join_exchanges_or_change_a_body(
        depth in 1..4usize,
        models in prop::collection::vec(model(), 4..20),
        lengths in prop::collection::vec(1..90usize, 1..12),
        lost in prop::collection::vec((any::<Index>(), 1..4usize), 0..5),
        choices in prop::collection::vec(any::<bool>(), 1..24),
        in_time in any::<bool>(),
    ) {
        // A client pipelines always or never: the habit that `pairing` relies on.
        let mut bursts: Vec<Vec<Model>> = models.chunks(depth).map(<[Model]>::to_vec).collect();
        bursts.retain(|burst| burst.len() == depth);
        let models: Vec<Model> = bursts.iter().flatten().cloned().collect();
        let mut pieces = pieces(&runs(&bursts), &lengths);
        for (index, count) in lost {
            let first = index.index(pieces.len());
            for piece in pieces.iter_mut().skip(first).take(count) {
                piece.lost = true;
            }
        }
        let lost_pieces: Vec<String> = pieces
            .iter()
            .filter(|piece| piece.lost)
            .map(|piece| format!("{:?} {} at {}: {}", piece.side, piece.offset, piece.ns, piece.bytes.escape_ascii()))
            .collect();
        let budget = Budget::new(Budget::DEFAULT);
        let all = feed(&if in_time { pieces } else { interleave(pieces, &choices) }, &budget);
        prop_assert_eq!(budget.used(), 0);
        let mut seen = (vec![0; models.len()], vec![0; models.len()]);
        for exchange in &all {
            let ask = exchange.request.as_ref().map(|m| (number(&m.head.target), m));
            let tell = exchange.response.as_ref().map(|m| (number(&m.head.target), m));
            if let (Some((ask, _)), Some((tell, _))) = (ask, tell) {
                prop_assert_eq!(ask, tell, "joined wrongly: {:?}, lost: {:?}", summary(&all), lost_pieces);
            }
            if let Some((n, message)) = ask {
                seen.0[n] += 1;
                check_message(message, Model::body(&models[n].ask))?;
            }
            if let Some((n, message)) = tell {
                seen.1[n] += 1;
                check_message(message, models[n].tell_body())?;
            }
        }
        prop_assert!(seen.0.iter().chain(&seen.1).all(|count| *count <= 1), "one message twice");
    }

    #[test]
    fn any_bytes_are_survived_within_the_budget(
        chunks in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) {
        let mut input = Vec::new();
        for (side, bytes) in chunks {
            input.push(u8::from(side));
            input.push(bytes.len() as u8);
            input.extend(bytes);
        }
        agent::http::fuzz::http1(&input);
    }
}
