//! The words of `explain`: plain text in at most [`COLUMNS`] columns (paths alone may be longer), with what came
//! from files and processes made harmless.

use std::fmt::Write as _;

use super::judgement::{Has, Judgement, Verdict};
use super::report::{Report, Standing};
use crate::command::format::Escaped;

/// As wide as the help.
const COLUMNS: usize = 100;
/// What is kept of TLS that is not read.
const FACTS: &str = "of connections made with it only facts are kept: peers, server name, TLS version, bytes";

/// All libraries, a block each, then what does not work on this host.
pub(super) fn libraries(report: &Report, verbose: bool) -> String {
    let mut out = String::new();
    if !report.supported {
        add(&mut out, "", "This kernel does not take the programs that read TLS libraries: no HTTPS is read.");
    } else if report.libraries.is_empty() {
        add(&mut out, "", "No TLS library has been found on this host: there is no HTTPS to read so far.");
    }
    for library in &report.libraries {
        if !out.is_empty() {
            out.push('\n');
        }
        add(&mut out, "", &format!("{} ({})", library.path, library.root));
        let stands = match (library.state, &library.error) {
            (Standing::Attached, _) => format!("read, {}", probes(library.probes)),
            (Standing::Failed, Some(error)) => format!("not read: {error}"),
            (Standing::Failed, None) => "not read".to_owned(),
        };
        add(&mut out, "  ", &format!("{}: {stands}", library.title()));
        if let Some(real) = &library.real_path {
            add(&mut out, "  ", &format!("lies in {real}"));
        }
        if let Some(note) = &library.note {
            add(&mut out, "  ", &format!("note: {note}"));
        }
        if verbose {
            plan(&mut out, &library.plan);
        }
    }
    if !report.notes.is_empty() {
        add(&mut out, "", "\nWhat does not work on this host:");
        for note in &report.notes {
            add(&mut out, "- ", note);
        }
    }
    out
}

/// One process.
pub(super) fn process(judgement: &Judgement, verbose: bool) -> String {
    let mut out = String::new();
    let head = match (&judgement.exe, judgement.root.as_str()) {
        (Some(exe), "host") => format!("PID {} ({exe})", judgement.pid),
        (Some(exe), root) => format!("PID {} ({exe}, {root})", judgement.pid),
        (None, _) => format!("PID {}", judgement.pid),
    };
    match judgement.verdict {
        Verdict::Agent => {
            add(&mut out, "", &format!("{head} is the agent itself: its own traffic is never captured."));
            return out;
        }
        Verdict::Nothing if judgement.exe.is_none() => {
            let says = "runs no program (a kernel thread, or it is at its end): there is nothing to read.";
            add(&mut out, "", &format!("{head} {says}"));
        }
        Verdict::Nothing => {
            let says = "has no TLS library: there is nothing to read. TLS that is built into a program without a \
                        trace (rustls, a stripped BoringSSL) cannot be told.";
            add(&mut out, "", &format!("{head} {says}"));
        }
        Verdict::Read | Verdict::NotRead => {}
    }
    for (number, has) in judgement.libraries.iter().enumerate() {
        let who = if number == 0 { head.as_str() } else { "It also" };
        add(&mut out, "", &format!("{who} {}", sentence(has)));
        if verbose {
            plan(&mut out, &has.plan);
        }
    }
    out
}

fn sentence(has: &Has) -> String {
    let what = match (has.built_in, has.title.as_str()) {
        (true, title) => format!("has {title} built in"),
        (false, title) => format!("uses {} ({title})", has.name()),
    };
    match &has.error {
        _ if has.read => format!("{what}: its HTTPS is read; {}.", probes(has.probes)),
        Some(error) => format!("{what}, which is not read: {error}; {FACTS}."),
        None => format!("{what}, which is not read yet; {FACTS}."),
    }
}

fn probes(number: u64) -> String {
    format!("{number} {}", if number == 1 { "probe" } else { "probes" })
}

fn plan(out: &mut String, lines: &[String]) {
    for line in lines {
        add(out, "    ", line);
    }
}

/// Adds a text after `lead`, broken at spaces where it is too long; what follows is set in by four more. A line feed
/// at its beginning is one in the output.
fn add(out: &mut String, lead: &str, text: &str) {
    let (blank, text) = text.strip_prefix('\n').map_or(("", text), |rest| ("\n", rest));
    out.push_str(blank);
    let further = " ".repeat(lead.len() + if lead == "- " { 0 } else { 4 });
    let mut line = lead.to_owned();
    let mut empty = true;
    // Several spaces in a row are a table's: they stay.
    for word in Escaped(text).to_string().split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(out, "{}", line.trim_end());
            line.clone_from(&further);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

#[cfg(test)]
mod tests {
    use super::super::judgement::tests::{report, uses};
    use super::*;
    use agent::library::Uses;

    fn says(uses: &Uses) -> String {
        let text = process(&Judgement::new(1234, uses, &report()), false);
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_verdict_has_its_words() {
        assert_eq!(
            says(&uses("/usr/bin/curl", &[("/usr/bin/curl", 9), ("/usr/lib/libssl.so.3", 3)])),
            "PID 1234 (/usr/bin/curl) uses libssl.so.3 (OpenSSL 3.0.3 or later): its HTTPS is read; 14 probes."
        );
        assert_eq!(
            says(&uses("/usr/bin/node", &[("/usr/bin/node", 5)])),
            "PID 1234 (/usr/bin/node) has OpenSSL 3.0.19 built in: its HTTPS is read; 14 probes."
        );
        assert_eq!(
            says(&uses("/usr/bin/wget", &[("/usr/lib/libgnutls.so.30", 8)])),
            format!("PID 1234 (/usr/bin/wget) uses libgnutls.so.30 (GnuTLS), which is not read yet; {FACTS}.")
        );
        assert_eq!(
            says(&uses("/x", &[("/old/libssl.so.1.1", 4)])),
            format!(
                "PID 1234 (/x) uses libssl.so.1.1 (OpenSSL), which is not read: the result cannot be found; {FACTS}."
            )
        );
        let contained = Uses { root: "container 0123456789ab".into(), go_tls: true, ..uses("/app", &[("/app", 9)]) };
        assert_eq!(
            says(&contained),
            format!(
                "PID 1234 (/app, container 0123456789ab) has Go's own TLS built in, which is not read yet; {FACTS}."
            )
        );
        assert!(
            says(&uses("/usr/bin/sleep", &[("/usr/bin/sleep", 9)])).contains("has no TLS library: there is nothing")
        );
        let thread = Uses { exe: None, ..uses("", &[]) };
        assert!(says(&thread).starts_with("PID 1234 runs no program (a kernel thread"));
        let agent = Uses { start_ticks: 700, ..uses("/usr/bin/tapstack", &[]) };
        let text = process(&Judgement::new(77, &agent, &report()), true);
        assert_eq!(text, "PID 77 (/usr/bin/tapstack) is the agent itself: its own traffic is never captured.\n");
    }

    #[test]
    fn what_is_not_read_beside_is_said_after_it() {
        let text = says(&uses("/usr/bin/curl", &[("/a/libgnutls.so.30", 8), ("/a/libssl.so.3", 3)]));
        assert!(text.contains("its HTTPS is read; 14 probes. It also uses libgnutls.so.30 (GnuTLS), which"), "{text}");
    }

    #[test]
    fn without_support_of_the_kernel_that_is_the_reason() {
        let report = Report { supported: false, libraries: Vec::new(), ..report() };
        let text = process(&Judgement::new(1, &uses("/x", &[("/a/libssl.so.3", 3)]), &report), false);
        assert!(text.contains("this kernel does not take the"), "{text}");
        assert!(libraries(&report, false).starts_with("This kernel does not take the programs"));
    }

    #[test]
    fn libraries_are_a_block_each_and_fit() {
        let mut report = report();
        report.notes = vec!["a long note that goes on ".repeat(8)];
        report.libraries[0].real_path = Some("/layers/1/libssl.so.3".into());
        report.libraries[2].note = Some("seen through an overlay whose layer was not found: why".into());
        assert_eq!(
            libraries(&report, true),
            "/usr/lib/libssl.so.3 (host)\n  \
             OpenSSL 3.0.3 or later: read, 14 probes\n  \
             lies in /layers/1/libssl.so.3\n    \
             tls_call       0x10  SSL_read: at its beginning\n\n\
             /old/libssl.so.1.1 (host)\n  OpenSSL: not read: the result cannot be found\n\n\
             /usr/bin/node (host)\n  OpenSSL 3.0.19: read, 14 probes\n  \
             note: seen through an overlay whose layer was not found: why\n    \
             tls_call       0x10  SSL_read: at its beginning\n\n\
             What does not work on this host:\n\
             - a long note that goes on a long note that goes on a long note that goes on a long note that goes\n  \
             on a long note that goes on a long note that goes on a long note that goes on a long note that\n  \
             goes on\n"
        );
        assert!(!libraries(&report, false).contains("tls_call"));
    }

    #[test]
    fn names_cannot_act_on_a_terminal() {
        let text = process(&Judgement::new(1, &uses("/x\x1b[2J\n", &[]), &report()), false);
        assert!(text.contains("/x\\u{1b}[2J\\u{a}") && !text.contains('\x1b'), "{text}");
    }
}
