//! What was seen of an exchange, how long it took, and why it is not whole.

use std::borrow::Cow;

use transaction::object::{Seen, Timing};

use crate::http::{Exchange, Framing, GapCause, Message, Note};

/// `completeness` of a message that was never seen.
pub(super) fn unseen<'a>() -> Seen<Cow<'a, str>> {
    Seen { end: Cow::Borrowed("unseen"), ..Seen::default() }
}

/// How the end of a message was known.
pub(super) fn end(message: &Message) -> &'static str {
    if !message.ended {
        return "cut";
    }
    match message.framing {
        Framing::None => "none",
        Framing::Length => "length",
        Framing::Chunked => "chunked",
        Framing::Close => "close",
    }
}

/// Why there is no whole exchange, or `None`. A body that only this agent cut (its limits, its memory) does
/// not make the exchange a failed one.
pub(super) fn error_type(exchange: &Exchange) -> Option<&'static str> {
    let (Some(request), Some(response)) = (&exchange.request, &exchange.response) else {
        return Some(if exchange.request.is_none() { "no_request" } else { "no_response" });
    };
    let broken = [request, response].into_iter().find(|message| !message.ended)?;
    let lost = broken.gaps.iter().any(|(_, _, cause)| matches!(cause, GapCause::Ring | GapCause::Unseen));
    Some(if lost { "gap" } else { "connection_closed" })
}

/// Both messages were seen from first to last byte and kept as far as the level says. Where two copies of the
/// same bytes differed, nobody knows which one TCP took; where a head was too long, fields are missing.
pub(super) fn complete(exchange: &Exchange, request: &Seen<Cow<'_, str>>, response: &Seen<Cow<'_, str>>) -> bool {
    let whole = |message: &Option<Message>| message.as_ref().is_some_and(|m| m.ended && m.gaps.is_empty());
    let kept = |seen: &Seen<Cow<'_, str>>| seen.truncated.iter().all(|why| why == "level");
    let certain = !exchange.notes.iter().any(|n| matches!(n, Note::RetransmissionDiffers | Note::HeadTooLong));
    certain && whole(&exchange.request) && whole(&exchange.response) && kept(request) && kept(response)
}

/// The parts of the exchange's time. The clock is the kernel's; a part that would be negative (a response
/// that began before its request did, which happens with an early answer) is zero.
pub(super) fn timing(exchange: &Exchange) -> Timing {
    let span = |m: &Message| m.last_ns.saturating_sub(m.first_ns);
    let (request, response) = (exchange.request.as_ref(), exchange.response.as_ref());
    let first = request.or(response).map_or(0, |m| m.first_ns);
    let last = [request, response].into_iter().flatten().map(|m| m.last_ns).max().unwrap_or(first);
    Timing {
        request_ns: request.filter(|m| m.ended).map(span),
        ttfb_ns: request.zip(response).map(|(q, r)| r.first_ns.saturating_sub(q.first_ns)),
        response_ns: response.filter(|m| m.ended).map(span),
        total_ns: last.saturating_sub(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_uncertain_is_not_complete() {
        let whole = || Some(Message { ended: true, ..Message::default() });
        let mut exchange = Exchange { request: whole(), response: whole(), ..Exchange::default() };
        let seen = Seen::default();
        assert!(complete(&exchange, &seen, &seen));
        for note in [Note::RetransmissionDiffers, Note::HeadTooLong] {
            exchange.notes = vec![note];
            assert!(!complete(&exchange, &seen, &seen), "{note:?}");
        }
        exchange.notes = vec![Note::BareLineFeed];
        assert!(complete(&exchange, &seen, &seen));
    }
}
