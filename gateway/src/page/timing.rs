//! The timing bar: where the time of an exchange went, as an SVG inside the page. Pure.
//!
//! Three lanes, since the parts can overlap: a server may answer before the request is whole.

use std::fmt::Write as _;

use transaction::object::Timing;

use super::words::duration;

/// Width of the drawing in its own units.
const WIDTH: f64 = 1000.0;
/// A part that took any time at all is drawn at least this wide.
const NARROWEST: f64 = 3.0;

/// One part of the time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// `request`, `wait`, `response`: also its class.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) took: String,
    start_ns: u64,
    length_ns: u64,
}

/// The parts that were seen, in order.
pub(crate) fn parts(t: &Timing) -> Vec<Part> {
    let part = |name, start_ns, length_ns| Part { name, took: duration(length_ns), start_ns, length_ns };
    let mut list = Vec::new();
    let request = t.request_ns.unwrap_or(0);
    if let Some(ns) = t.request_ns {
        list.push(part("request", 0, ns));
    }
    match t.ttfb_ns {
        Some(ttfb) => list.push(part("wait", request.min(ttfb), ttfb.saturating_sub(request))),
        None if t.request_ns.is_some() && t.total_ns > request => {
            list.push(part("wait", request, t.total_ns - request));
        }
        None => {}
    }
    if let Some(ns) = t.response_ns {
        list.push(part("response", t.ttfb_ns.unwrap_or(0), ns));
    }
    list
}

/// The drawing; empty when there is nothing to draw.
pub(crate) fn svg(parts: &[Part], total_ns: u64) -> String {
    let whole = parts.iter().map(|p| p.start_ns.saturating_add(p.length_ns)).max().unwrap_or(0).max(total_ns);
    if whole == 0 {
        return String::new();
    }
    let spoken: Vec<String> = parts.iter().map(|p| format!("{} {}", p.name, p.took)).collect();
    let mut svg = format!(
        "<svg class=\"timing\" viewBox=\"0 0 1000 36\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\"><rect class=\"ground\" width=\"1000\" height=\"36\"/>",
        spoken.join(", ")
    );
    for (lane, part) in parts.iter().enumerate() {
        let width = (part.length_ns as f64 / whole as f64 * WIDTH).max(NARROWEST);
        let x = (part.start_ns as f64 / whole as f64 * WIDTH).min(WIDTH - width);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<rect class=\"{}\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"12\"/>",
            part.name,
            lane * 12
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_overlap_when_the_answer_came_early() {
        let t = Timing { request_ns: Some(100), ttfb_ns: Some(300), response_ns: Some(700), total_ns: 1000 };
        let list = parts(&t);
        let spans: Vec<_> = list.iter().map(|p| (p.name, p.start_ns, p.length_ns)).collect();
        assert_eq!(spans, [("request", 0, 100), ("wait", 100, 200), ("response", 300, 700)]);
        let drawn = svg(&list, 1000);
        assert!(drawn.contains("class=\"wait\" x=\"100.0\" y=\"12\" width=\"200.0\""), "{drawn}");
        let early = parts(&Timing { request_ns: Some(900), ttfb_ns: Some(100), response_ns: Some(50), total_ns: 900 });
        assert_eq!((early[1].length_ns, early[2].start_ns), (0, 100));
    }

    #[test]
    fn what_was_not_seen_is_not_drawn() {
        assert!(parts(&Timing::default()).is_empty());
        assert_eq!(svg(&[], 0), "");
        let silent = parts(&Timing { request_ns: Some(10), total_ns: 10, ..Timing::default() });
        assert_eq!(silent.len(), 1);
        let huge = parts(&Timing {
            request_ns: Some(u64::MAX),
            ttfb_ns: Some(u64::MAX),
            response_ns: Some(u64::MAX),
            total_ns: 1,
        });
        assert!(svg(&huge, 1).contains("response"));
    }
}
