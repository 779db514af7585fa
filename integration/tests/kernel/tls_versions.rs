//! Versions of TLS, cipher suites, resumed sessions.

use anyhow::{Context as _, Result, ensure};
use integration::{content, program, tls::Site};

use crate::{
    Test,
    tls::{Asking, Checks, Owner, Wanted, curl_file},
    tls_programs::s_client,
};

pub(crate) const TESTS: &[Test] =
    &[("tls_cipher_suites_of_1_2_and_1_3", suites), ("tls_resumed_sessions_and_tickets", resumed)];

/// OpenSSL's name, IANA's name. Stream, AEAD with 16 and 8 byte tags, block chaining with and without
/// encrypt-then-mac: the length of a record follows from that of the plaintext in another way each time.
const OLD: [(&str, &str); 8] = [
    ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("ECDHE-RSA-AES256-GCM-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
    ("ECDHE-RSA-CHACHA20-POLY1305", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ("ECDHE-RSA-AES128-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"),
    ("ECDHE-RSA-AES256-SHA384", "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384"),
    ("AES128-SHA", "TLS_RSA_WITH_AES_128_CBC_SHA"),
    ("AES128-CCM", "TLS_RSA_WITH_AES_128_CCM"),
    ("AES128-CCM8", "TLS_RSA_WITH_AES_128_CCM_8"),
];
const NEW: [&str; 5] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
];

fn suites() -> Result<()> {
    let site = Site::new()?;
    let nginx = site.nginx("ssl_protocols TLSv1.2; ssl_ciphers ALL:@SECLEVEL=0;", |_| {})?;
    let all = NEW.join(":");
    let own = site.s_server(program::command("openssl"), &["-ciphersuites", &all, "-cipher", "ALL:@SECLEVEL=0"])?;
    let mut checks = Checks::start("/tls/suites/", &[])?;
    for (name, cipher) in OLD {
        let options = ["--tls-max", "1.2", "--ciphers", &format!("{name}:@SECLEVEL=0")];
        let wanted = curl_file(&site, &nginx, &format!("/tls/suites/{name}"), 110, 30_000, &options).context(name)?;
        checks.add(Wanted { version: "TLSv1.2", cipher, ..wanted });
    }
    std::fs::create_dir_all(site.folder().join("tls/suites"))?;
    for name in NEW {
        let (path, body) = (format!("/tls/suites/{name}"), content::text(111, 30_000));
        std::fs::write(site.folder().join(&path[1..]), &body)?;
        let options = ["-tls1_3", "-ciphersuites", name, "-cipher", "ALL:@SECLEVEL=0"];
        let wanted = s_client(program::command("openssl"), &own, &path, &options, &body).context(name)?;
        checks.add(Wanted { version: "TLSv1.3", cipher: name, ..wanted });
    }
    checks.done()
}

fn resumed() -> Result<()> {
    let site = Site::new()?;
    let tickets = site.nginx("", |_| {})?;
    let cache = site.nginx("ssl_session_tickets off; ssl_session_cache shared:a:1m;", |_| {})?;
    let mut checks = Checks::start("/tls/resumed/", &[])?;
    for (kind, server) in [("tickets", &tickets), ("cache", &cache)] {
        for (version, options) in [("TLSv1.3", &[][..]), ("TLSv1.2", &["tls1.2"])] {
            let command = site.python("resumed", "c.tls.test", server.port, options);
            let mut client = Asking::start(command, "c.tls.test", server)?;
            client.shared.version = version;
            for n in 0..4_u64 {
                let at = format!("/tls/resumed/{kind}/{version}/{n}");
                let note = client.get(&mut checks, &site, &at, 120 + n, 9000)?;
                let right = if n == 0 { "new" } else { "resumed" };
                ensure!(note == right, "{at}: a session that is {note}, not {right}: no test");
            }
        }
        // Six handshakes, five of them resumed, and the request in the last connection.
        let (body, path) = (content::body(130, 9000), format!("/tls/resumed/{kind}/{}", site.file(130, 9000)?));
        let options = ["-tls1_2", "-reconnect"];
        let mut wanted = s_client(program::command("openssl"), server, &path, &options, &body)?;
        wanted.server = Owner("nginx", Some(server.pid()));
        checks.add(wanted);
    }
    checks.done()
}
