//! One exchange as one line: what `tail` and `find` print.

use transaction::{ArtifactRecord, time::rfc3339};

use super::format::{Colour, Escaped, Look, clock, duration, of_status, size};

/// Longest executable name in a table.
const LONGEST_NAME: usize = 18;

/// The names above the columns of [`line`], for a terminal.
pub(crate) fn heading(look: Look) -> String {
    look.paint(
        Colour::Faint,
        &format!(
            "{:12}  {:8}  {:3}  {:7}  {:>7}  {:>7}  {:>7}  {:6}  {:24}  {}",
            "TIME", "DIGEST", "ST", "METHOD", "TOOK", "SENT", "RECVD", "END", "PROCESS", "HOST AND PATH"
        ),
    )
}

/// The line of a record, without a line feed. At a terminal it fits the width and begins with the time of day;
/// otherwise nothing is cut: full digest, full path of the executable, time with its date in UTC.
pub(crate) fn line(record: &ArtifactRecord, look: Look) -> String {
    let r = record;
    let status = r.response_status.map_or_else(|| "---".to_owned(), |s| s.to_string());
    let took = duration(r.duration_ns);
    let (sent, received) = (size(r.bytes_sent), size(r.bytes_received));
    let end = r.end.as_str();
    let method = if r.request_method.is_empty() { "-".to_owned() } else { Escaped(&r.request_method).to_string() };
    let digest = r.digest.to_string();
    let mut place = Escaped(&format!("{}{}", r.request_host, r.request_path)).to_string();
    if place.is_empty() {
        place.push('-');
    }
    let error = r.error_type.as_deref().map(|e| Escaped(e).to_string());
    let mark = match &error {
        Some(error) => format!(" ({error})"),
        None if !r.complete => " (incomplete)".to_owned(),
        None => String::new(),
    };
    let Some(columns) = look.columns else {
        let process = format!("{}[{}]", Escaped(&r.process_exe), r.process_pid);
        let time = rfc3339(r.time_unix_ns);
        return format!(
            "{time}  {digest}  {status}  {method:7}  {took:>7}  {sent:>7}  {received:>7}  {end}  {process}  {place}{mark}"
        );
    };
    let name = r.process_exe.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("?");
    let process = format!("{}[{}]", cut(&Escaped(name).to_string(), LONGEST_NAME), r.process_pid);
    let method = cut(&method, 7);
    let fixed = 12 + 2 + 8 + 2 + 3 + 2 + 7 + 2 + 7 + 2 + 7 + 2 + 7 + 2 + 6 + 2 + process.chars().count().max(24) + 2;
    // On a narrow terminal the line wraps rather than that the place is lost.
    let room = columns.saturating_sub(fixed + mark.chars().count()).max(20);
    let place = cut(&place, room);
    format!(
        "{}  {}  {}  {}  {took:>7}  {sent:>7}  {received:>7}  {end}  {process:24}  {place}{}",
        look.paint(Colour::Faint, &clock(r.time_unix_ns)),
        look.paint(Colour::Faint, &digest[..8]),
        look.paint(of_status(r.response_status), &status),
        look.paint(Colour::Bold, &format!("{method:7}")),
        look.paint(if error.is_some() { Colour::Red } else { Colour::Yellow }, &mark),
    )
}

/// At most so many characters, with a mark where something was cut.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn cuts_at_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("", 0), "");
    }
}
