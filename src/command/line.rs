//! One exchange as one line: what `tail` and `find` print.

use transaction::{ArtifactRecord, object::End, time::rfc3339};

use super::format::{Colour, Escaped, Look, clock, duration, of_status, size, time_of_day};

/// What a terminal of some width has room for.
struct Columns {
    /// Milliseconds beside the time of day.
    fine: bool,
    /// Bytes sent and received.
    sizes: bool,
    /// `client` and `server` in full.
    words: bool,
    /// Width of the process.
    process: usize,
    /// Width of host and path.
    place: usize,
}

impl Columns {
    /// Less of everything on a narrow terminal, so that host and path keep some room; below 80 the lines wrap.
    fn of(width: usize) -> Columns {
        let (fine, sizes, words, process) = match width {
            130.. => (true, true, true, 24),
            100.. => (true, false, true, 20),
            _ => (false, false, false, 14),
        };
        let time = if fine { 12 } else { 8 };
        let end = if words { 6 } else { 1 };
        let fixed = [time, 8, 3, 7, 7, end, process].iter().map(|w| w + 2).sum::<usize>() + if sizes { 18 } else { 0 };
        Columns { fine, sizes, words, process, place: width.saturating_sub(fixed).max(16) }
    }
}

/// The names above the columns of [`line`], for a terminal; nothing for another program.
pub(crate) fn heading(look: Look) -> String {
    let Some(width) = look.columns else { return String::new() };
    let c = Columns::of(width);
    let time = if c.fine { 12 } else { 8 };
    let end = if c.words { "END   " } else { "E" };
    let sizes = if c.sizes { "     SENT    RECVD" } else { "" };
    let text = format!(
        "{:time$}  DIGEST    ST   METHOD      TOOK{sizes}  {end}  {:process$}  HOST AND PATH",
        "TIME",
        "PROCESS",
        process = c.process
    );
    look.paint(Colour::Faint, &text) + "\n"
}

/// The line of a record, without a line feed. At a terminal it fits the width and begins with the time of day;
/// otherwise nothing is cut: full digest, full path of the executable, time with its date in UTC.
pub(crate) fn line(record: &ArtifactRecord, look: Look) -> String {
    let r = record;
    let status = r.response_status.map_or_else(|| "---".to_owned(), |s| format!("{s:<3}"));
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
        Some(error) => format!("({error})"),
        None if !r.complete => "(incomplete)".to_owned(),
        None => String::new(),
    };
    let Some(width) = look.columns else {
        let process = format!("{}[{}]", Escaped(&r.process_exe), r.process_pid);
        let time = rfc3339(r.time_unix_ns);
        let line = format!(
            "{time}  {digest}  {status}  {method:7}  {took:>7}  {sent:>7}  {received:>7}  {end}  {process}  {place} {mark}"
        );
        return line.trim_end().to_owned();
    };
    let c = Columns::of(width);
    let name = r.process_exe.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("?");
    let pid = format!("[{}]", r.process_pid);
    let process = cut(&Escaped(name).to_string(), c.process - pid.len().min(c.process)) + &pid;
    let time = if c.fine { clock(r.time_unix_ns) } else { time_of_day(r.time_unix_ns) };
    // An error may take half of the room, what it leaves is the place's.
    let mark = cut(&mark, c.place / 2);
    let taken = if mark.is_empty() { 0 } else { mark.chars().count() + 1 };
    let place = cut(&place, c.place - taken);
    let end = match (c.words, r.end) {
        (true, _) => format!("{end:6}"),
        (false, End::Client) => "c".to_owned(),
        (false, End::Server) => "s".to_owned(),
    };
    let sizes = if c.sizes { format!("  {sent:>7}  {received:>7}") } else { String::new() };
    let line = format!(
        "{}  {}  {}  {}  {took:>7}{sizes}  {end}  {process:width$}  {place} {}",
        look.paint(Colour::Faint, &time),
        look.paint(Colour::Faint, &digest[..8]),
        look.paint(of_status(r.response_status), &status),
        look.paint(Colour::Bold, &format!("{:7}", cut(&method, 7))),
        look.paint(if error.is_some() { Colour::Red } else { Colour::Yellow }, &mark),
        width = c.process,
    );
    line.trim_end().to_owned()
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
    use transaction::{Transaction, seal};

    use super::*;

    #[test]
    fn a_line_fits_the_terminal() {
        let mut long = Transaction {
            request: Some(transaction::object::Request {
                method: "PROPPATCH".to_owned(),
                authority: "a-rather-long-name.of-some-service.example:8443".to_owned(),
                path: format!("/{}", "segment/".repeat(50)),
                ..Default::default()
            }),
            ..Transaction::default()
        };
        long.process.exe = "/usr/lib/jvm/java-21-openjdk-amd64/bin/a-long-executable-name".to_owned();
        long.process.pid = 4_194_303;
        for error in [None, Some("connection_reset_by_the_other_end_before_the_response".to_owned())] {
            long.error_type = error;
            let record = seal(&long, 1_790_000_000_000_000_000).record;
            for width in [80, 99, 100, 129, 130, 200] {
                let look = Look { colours: false, columns: Some(width) };
                let line = line(&record, look);
                assert!(line.chars().count() <= width, "{width}: {line}");
                assert!(line.contains("[4194303]"), "{line}");
                // Each column stands under its name.
                let at = |text: &str, part: &str| text.find(part).map(|n| text[..n].chars().count());
                assert_eq!(at(&heading(look), "HOST AND PATH"), at(&line, "a-rat"), "{width}");
            }
        }
    }

    #[test]
    fn cuts_at_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("", 0), "");
    }
}
