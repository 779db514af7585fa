//! HTTPS for the tests: certificates made at run time, servers and clients of several programs and of the sources
//! in `peers/`, and the files that they serve.
//!
//! Every server answers a GET with the file that the path's last part names ([`Site::file`]), so the rest of a path
//! is free to name an exchange. Every client takes lines, `METHOD PATH [FILE]`, and answers `STATUS LENGTH SHA1`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    content,
    program::{self, Dialogue, Running, free_port},
};

/// The names in the server's certificate, beside `*.tls.test`, `localhost` and 127.0.0.1.
pub const NAME: &str = "tls.test";

/// A folder with certificates and content.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
}

impl Site {
    /// Makes a CA, and a certificate of it (RSA, for the cipher suites that want it).
    ///
    /// # Errors
    /// When openssl(1) fails.
    pub fn new() -> Result<Site> {
        use std::os::unix::fs::PermissionsExt as _;
        let site = Site { folder: tempfile::Builder::new().prefix("tapstack-tls-").tempdir()? };
        // Containers and other users read it as well; the key is worth nothing.
        fs::set_permissions(site.folder.path(), fs::Permissions::from_mode(0o755))?;
        let make = |arguments: &[&str]| {
            let mut command = program::command("openssl");
            command.args(["req", "-x509", "-nodes", "-days", "2"]).args(arguments).current_dir(&site.folder);
            program::output(&mut command).map(drop)
        };
        let elliptic = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let authority = ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Tests of Tapstack"];
        make(&[&elliptic[..], &authority].concat())?;
        let names = format!("subjectAltName=DNS:{NAME},DNS:*.{NAME},DNS:localhost,IP:127.0.0.1");
        let server = ["-newkey", "rsa:2048", "-keyout", "key.pem", "-out", "certificate.pem", "-subj", "/CN=tls.test"];
        let signed =
            ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE", "-addext", &names];
        make(&[&server[..], &signed].concat())?;
        Ok(site)
    }

    /// The folder that servers answer from.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Path of the CA's certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder().join("ca.pem")
    }

    fn certificate(&self) -> [PathBuf; 2] {
        ["certificate.pem", "key.pem"].map(|name| self.folder().join(name))
    }

    /// The name of a file with [`content::body`] of this seed and length; made when it is not there yet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, seed: u64, len: usize) -> Result<String> {
        let name = format!("bytes-{seed}-{len}");
        let path = self.folder().join(&name);
        if !path.exists() {
            fs::write(path, content::body(seed, len))?;
        }
        Ok(name)
    }

    /// nginx without a master process; PUT stores files. `more` goes into its server block, `prepare` changes the
    /// command.
    ///
    /// # Errors
    /// When it does not start.
    pub fn nginx(&self, more: &str, prepare: impl FnOnce(&mut Command)) -> Result<Server> {
        let folder = tempfile::tempdir_in(&self.folder)?;
        let (at, port) = (folder.path().display(), free_port()?);
        let [certificate, key] = self.certificate();
        let configuration = format!(
            "daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; user root;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; sendfile on; keepalive_requests 100000; default_type application/octet-stream;\n\
             client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u;\n\
             scgi_temp_path {at}/s; client_max_body_size 64m; output_buffers 2 2m; ssl_protocols TLSv1.2 TLSv1.3;\n\
             server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
             root {}; location / {{ rewrite ^/.*/([^/]+)$ /$1 break; dav_methods PUT; }}\n\
             add_header X-Pid $pid always; {more} }} }}\n",
            certificate.display(),
            key.display(),
            self.folder().display()
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration)?;
        let mut command = program::command("nginx");
        command.arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log")).arg("-c").arg(file);
        prepare(&mut command);
        let running = Running::start(&mut command)?.listens(port)?;
        Ok(Server { running, port, name: "nginx", folder: Some(folder) })
    }

    /// A server of `peers/`: `threads`, `prefork` and `asyncio` of Python, `node`, or `gnutls`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn server(&self, model: &str) -> Result<Server> {
        let port = free_port()?;
        let (mut command, name) = match model {
            "node" => (node(), "node"),
            "gnutls" => (python("tls_gnutls.py"), "python3"),
            _ => (python("tls_server.py"), "python3"),
        };
        match model {
            "node" => command.arg("serve"),
            "gnutls" => &mut command,
            _ => command.arg(model),
        };
        command.arg(port.to_string()).args(self.certificate()).arg(self.folder());
        let running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()))?.listens(port)?;
        Ok(Server { running, port, name, folder: None })
    }

    /// `openssl s_server -WWW` with further options; `command`: which openssl.
    ///
    /// # Errors
    /// When it does not start.
    pub fn s_server(&self, mut command: Command, options: &[&str]) -> Result<Server> {
        let port = free_port()?;
        let [certificate, key] = self.certificate();
        command.args(["s_server", "-WWW", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
        command.arg("-cert").arg(certificate).arg("-key").arg(key).args(options);
        command.current_dir(self.folder()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running::start(&mut command)?.listens(port)?;
        Ok(Server { running, port, name: "openssl", folder: None })
    }

    /// A client of `peers/tls_client.py`.
    #[must_use]
    pub fn python(&self, model: &str, host: &str, port: u16, options: &[&str]) -> Command {
        let mut command = python("tls_client.py");
        command.args([model, host, &port.to_string()]).arg(self.authority()).args(options);
        command
    }

    /// A client of `peers/tls_node.js`: `fetch` or `https`.
    #[must_use]
    pub fn node(&self, model: &str, host: &str, port: u16) -> Command {
        let mut command = node();
        command.args([model, host, &port.to_string()]).env("NODE_EXTRA_CA_CERTS", self.authority());
        command
    }

    /// A client of `peers/tls_client.c`, compiled when it has not been yet; `options` are separated by white space.
    ///
    /// # Errors
    /// When it cannot be compiled.
    pub fn c(&self, options: &str, host: &str, port: u16) -> Result<Command> {
        let program = self.folder().join("tls_client");
        if !program.exists() {
            let mut compiler = program::command("cc");
            compiler
                .args(["-std=gnu11", "-O1", "-Wall", "-Werror", "-o"])
                .arg(&program)
                .arg(peers().join("tls_client.c"));
            program::output(compiler.args(["-lssl", "-lcrypto", "-lpthread"])).context("Debian: libssl-dev")?;
        }
        let mut command = Command::new(program);
        command.args([host, &port.to_string()]).arg(self.authority()).args(options.split_whitespace());
        Ok(command)
    }

    /// Copies Debian's libssl and libcrypto into a folder of the site and returns it, for `LD_LIBRARY_PATH`. A file
    /// that is there already is replaced by a rename, as package managers do.
    ///
    /// # Errors
    /// Those of the file system, and when the libraries are not found.
    pub fn libraries(&self) -> Result<PathBuf> {
        let folder = self.folder().join("lib");
        fs::create_dir_all(&folder)?;
        for library in needed(&program::find("curl").context("Debian: curl")?)? {
            let name = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("libssl") || name.starts_with("libcrypto") {
                fs::copy(&library, folder.join("new"))?;
                fs::rename(folder.join("new"), folder.join(name))?;
            }
        }
        ensure!(folder.read_dir()?.count() >= 2, "curl does not use libssl and libcrypto");
        Ok(folder)
    }

    /// The files of a container image that has curl: `/ca.pem` is the CA.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn image(&self) -> Result<PathBuf> {
        let image = self.folder().join("image");
        let put = |from: &Path, to: &Path| -> Result<()> {
            let to = image.join(to.strip_prefix("/").unwrap_or(to));
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            fs::copy(from, &to).with_context(|| from.display().to_string()).map(drop)
        };
        let curl = program::find("curl").context("Debian: curl")?;
        let busybox = program::find("busybox").context("Debian: busybox-static")?;
        for library in needed(&curl)? {
            put(&library, &library)?;
        }
        put(&curl, Path::new("/usr/bin/curl"))?;
        put(&busybox, Path::new("/bin/busybox"))?;
        put(&self.authority(), Path::new("/ca.pem"))?;
        Ok(image)
    }

    /// Starts a container of an image that does nothing.
    ///
    /// # Errors
    /// When there is no overlayfs.
    pub fn container(&self, image: &Path) -> Result<Dialogue> {
        let empty = tempfile::tempdir_in(&self.folder)?.keep();
        let mut command = program::command("unshare");
        Dialogue::start(command.arg("--mount").arg(peers().join("container.sh")).arg(image).arg(empty))
    }

    /// wrk over 16 connections: so many GETs of `PREFIX` N `/FILE`, N from 1, each once. It runs for its whole two
    /// seconds.
    #[must_use]
    pub fn wrk(&self, url: &str, prefix: &str, file: &str, count: usize) -> Command {
        let mut command = program::command("wrk");
        command.args(["-t1", "-c16", "-d2s", "-s"]).arg(peers().join("wrk_count.lua")).arg(url);
        command.args(["--", prefix, file, &count.to_string()]);
        command
    }

    /// curl over HTTP/1.1, which connects to 127.0.0.1 whatever the host is; without a URL yet.
    #[must_use]
    pub fn curl(&self, host: &str, port: u16) -> Command {
        let mut command = program::command("curl");
        command.args(["-sSf", "--http1.1", "--noproxy", "*", "--resolve", &format!("{host}:{port}:127.0.0.1")]);
        command.arg("--cacert").arg(self.authority());
        command
    }
}

/// A server that runs, on 127.0.0.1.
#[derive(Debug)]
pub struct Server {
    running: Running,
    /// Its port.
    pub port: u16,
    /// How its executable's name begins.
    pub name: &'static str,
    #[expect(dead_code, reason = "goes with the server")]
    folder: Option<TempDir>,
}

impl Server {
    /// The process that was started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// `https://HOST:PORT` with this path behind it.
    #[must_use]
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.port)
    }
}

/// The files that a program needs before it can run: its interpreter and libraries.
fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let said = program::output(program::command("ldd").arg(program))?;
    let said = String::from_utf8(said)?;
    Ok(said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// Debian's Python on a program of `peers/`.
#[must_use]
pub fn python(file: &str) -> Command {
    let mut command = program::command("python3");
    command.arg(peers().join(file));
    command
}

fn node() -> Command {
    let mut command = program::command("node");
    command.arg(peers().join("tls_node.js"));
    command
}

/// Asks a client and checks what it got: `file` is the body that it sends, `expected` the body of the answer.
///
/// # Errors
/// When the answer is another one.
pub fn asked(client: &mut Dialogue, line: &str, status: u16, expected: &[u8]) -> Result<String> {
    let answer = client.ask(line)?;
    let right = format!("{status} {} {}", expected.len(), content::sha1(expected));
    ensure!(answer.starts_with(&right), "{line}: answered {answer}, not {right}");
    Ok(answer[right.len()..].trim().to_owned())
}
