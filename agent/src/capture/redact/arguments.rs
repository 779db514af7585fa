//! A process's arguments: values after the options that take secrets, and what any text may hold.

use super::{
    names::{self, Kind},
    pass::Pass,
    tally::{Place, Tally},
};

/// Short options that take credentials in common programs: curl, wget, mysql, psql's relatives, sshpass, redis-cli.
const CREDENTIAL_OPTIONS: &[(&str, &[&str])] = &[
    ("-u", &["curl"]),
    ("-U", &["curl"]),
    (
        "-p",
        &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mariadb",
            "mongo",
            "mongosh",
            "mongodump",
            "sshpass",
            "docker",
            "podman",
            "ldapsearch",
        ],
    ),
    ("-a", &["redis-cli"]),
    ("-w", &["ldapsearch", "ldapmodify", "ldapadd"]),
];

/// Long options whose value has a user's name and a password.
const USER_OPTIONS: &[&str] = &["user", "proxyuser", "basicauth", "auth"];

const PLACE: Place<'static> = Place { side: "process", part: "args", name: "" };

/// Masks what is secret, in place.
pub(super) fn redact(arguments: &mut [String], tally: &mut Tally) {
    let program =
        arguments.first().map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()).unwrap_or_default();
    let mut next = None;
    for argument in arguments.iter_mut() {
        if let Some(word) = next.take() {
            // A secret rarely begins like an option; an option may follow one that takes no value.
            if !argument.starts_with("--") {
                *argument = mask(argument, 0, word, tally);
                continue;
            }
        }
        let option = argument.trim_start_matches('-');
        let dashes = argument.len() - option.len();
        if dashes == 1
            && let Some((option, _)) = CREDENTIAL_OPTIONS
                .iter()
                .find(|(o, programs)| argument.starts_with(o) && programs.contains(&program.as_str()))
        {
            if argument.len() == option.len() {
                next = Some("option");
            } else {
                *argument = mask(argument, option.len(), "option", tally);
            }
            continue;
        }
        let (name, equals) = match option.find('=') {
            Some(at) => (&option[..at], Some(dashes + at + 1)),
            None => (option, None),
        };
        // Without dashes it is a variable, as `env` and `docker run -e` take them.
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        let word = if plain && (dashes > 0 || equals.is_some()) { secret(name, dashes) } else { None };
        match (word, equals) {
            (Some(word), Some(start)) => *argument = mask(argument, start, word, tally),
            (Some(word), None) => next = Some(word),
            (None, _) => {
                // `curl -d` takes forms and JSON: what an argument is can only be seen from itself.
                let mut once = |text: &[u8]| super::walk(text, "", PLACE, tally, false, 0);
                if let Some(changed) = once(argument.as_bytes()) {
                    *argument = super::string(super::settle(changed, once));
                }
            }
        }
    }
}

fn secret(name: &str, dashes: usize) -> Option<&'static str> {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let user = dashes == 2 && USER_OPTIONS.contains(&plain.as_str());
    names::secret(name.as_bytes(), Kind::Json).or(if user { Some("user") } else { None })
}

fn mask(argument: &str, from: usize, word: &str, tally: &mut Tally) -> String {
    let mut pass = Pass::new(argument.as_bytes(), PLACE, tally, false);
    pass.mask(from..argument.len(), "", word);
    pass.edit.finish().map_or_else(|| argument.to_owned(), super::string)
}
