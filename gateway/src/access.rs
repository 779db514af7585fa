//! Who may read: root, the user that the gateway runs as, the user who ran `sudo`, and members of group
//! `tapstack`. Root decrypts everybody's traffic, so being on the same host is not enough.
//!
//! In: a [`Peer`]. Out: a [`Caller`], with the line that tells a refused one what to do. Called by `server`
//! once a connection; `guard` applies it to each request. Groups are read from `/etc/group` and
//! `/etc/passwd` at that moment, so a change needs no restart; directories behind NSS (LDAP) are not asked.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use crate::peer::Peer;

/// The group whose members may read.
pub const GROUP: &str = "tapstack";

/// More than any account file of a host that is not read through NSS.
const ACCOUNT_FILE_LIMIT: u64 = 4 << 20;

/// Who may read, as set up at start.
#[derive(Clone, Debug)]
pub struct Access {
    uids: BTreeSet<u32>,
    group_file: PathBuf,
    passwd_file: PathBuf,
}

/// Who asks, and whether they may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// May read; for the audit log.
    Allowed {
        /// The user of the peer's socket.
        uid: u32,
    },
    /// May not; the line says why and what to do.
    Refused(String),
}

impl Access {
    /// Root, the effective user of this process, and `SUDO_UID` when this process is root's.
    #[must_use]
    pub fn from_environment() -> Self {
        // SAFETY: geteuid(2) takes nothing and cannot fail.
        let own = unsafe { libc::geteuid() };
        let mut uids = BTreeSet::from([0, own]);
        // Without root the variable proves nothing: anybody can set it.
        if own == 0 {
            uids.extend(std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok()));
        }
        Access { uids, group_file: "/etc/group".into(), passwd_file: "/etc/passwd".into() }
    }

    /// The same with other account files.
    #[cfg(test)]
    fn with_files(uids: &[u32], group_file: PathBuf, passwd_file: PathBuf) -> Self {
        Access { uids: uids.iter().copied().collect(), group_file, passwd_file }
    }

    /// Whether the answer needs no file: so that the common case does no I/O.
    pub(crate) fn at_once(&self, peer: Peer) -> Option<Caller> {
        match peer {
            Peer::Uid(uid) if self.uids.contains(&uid) => Some(Caller::Allowed { uid }),
            Peer::Uid(_) => None,
            Peer::Remote(ip) => Some(Caller::Refused(format!(
                "Not allowed: {ip} is not this host, and the gateway answers loopback only. Use ssh -L 3904:localhost:3904 to this host."
            ))),
            Peer::Unknown => Some(Caller::Refused(
                "Not allowed: no user was found behind this connection. Connect from the gateway's own network namespace, and keep the connection open."
                    .to_owned(),
            )),
            Peer::Untold => Some(Caller::Refused(
                "Not allowed: this kernel does not tell the user behind a connection; the gateway's log says why. Try: sudo modprobe tcp_diag, then restart the gateway."
                    .to_owned(),
            )),
        }
    }

    /// The whole decision; reads the account files where needed (blocking).
    pub(crate) fn decide(&self, peer: Peer) -> Caller {
        if let Some(caller) = self.at_once(peer) {
            return caller;
        }
        let Peer::Uid(uid) = peer else { return Caller::Refused(String::new()) };
        let passwd = read(&self.passwd_file);
        let group = read(&self.group_file);
        let account = account(&passwd, uid);
        if is_member(&group, account) {
            return Caller::Allowed { uid };
        }
        let name = account.map_or_else(|| uid.to_string(), |a| a.name.chars().take(32).collect());
        let create = if find_group(&group).is_some() { "" } else { "sudo groupadd --system tapstack; " };
        Caller::Refused(format!(
            "Not allowed: uid {uid} ({name}) may not see captured traffic. Use sudo, or join the group: {create}sudo usermod -aG {GROUP} {name}"
        ))
    }
}

fn read(path: &Path) -> String {
    let bounded = || -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(path)?.take(ACCOUNT_FILE_LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    bounded().unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "Could not read accounts; group members are refused.");
        String::new()
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Account<'a> {
    name: &'a str,
    gid: &'a str,
}

/// passwd(5): name, password, uid, gid, …
fn account(passwd: &str, uid: u32) -> Option<Account<'_>> {
    passwd.lines().find_map(|line| {
        let mut field = line.split(':');
        let name = field.next()?;
        let found = field.nth(1)?.parse::<u32>().ok()?;
        let gid = field.next()?;
        (found == uid && !name.is_empty()).then_some(Account { name, gid })
    })
}

/// group(5): name, password, gid, members. The gid and members of [`GROUP`].
fn find_group(group: &str) -> Option<(&str, &str)> {
    group.lines().find_map(|line| {
        let mut field = line.split(':');
        (field.next()? == GROUP).then_some(())?;
        Some((field.nth(1)?, field.next()?))
    })
}

fn is_member(group: &str, account: Option<Account<'_>>) -> bool {
    let (Some((gid, members)), Some(account)) = (find_group(group), account) else { return false };
    (account.gid == gid && !gid.is_empty()) || members.split(',').any(|m| m.trim() == account.name)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n\
                          ben:x:1001:990::/home/ben:/bin/sh\ncat:x:1002:1002::/home/cat:/bin/sh\nbad line\n:x:7:990::\n";

    fn access(group: &str) -> (tempfile::TempDir, Access) {
        let dir = tempfile::tempdir().unwrap();
        let (g, p) = (dir.path().join("group"), dir.path().join("passwd"));
        fs::write(&g, group).unwrap();
        fs::write(&p, PASSWD).unwrap();
        (dir, Access::with_files(&[0, 500], g, p))
    }

    #[test]
    fn members_by_list_and_by_primary_group_may_read_and_others_may_not() {
        let (_dir, access) = access("root:x:0:\ntapstack:x:990:dan,ann\ntapstack2:x:991:cat\n");
        for allowed in [0, 500, 1000, 1001] {
            assert_eq!(access.decide(Peer::Uid(allowed)), Caller::Allowed { uid: allowed });
        }
        for refused in [1002, 1003, 7, 990] {
            assert!(matches!(access.decide(Peer::Uid(refused)), Caller::Refused(_)), "{refused}");
        }
    }

    #[test]
    fn a_refusal_is_one_line_that_says_what_to_do() {
        let (_dir, with) = access("tapstack:x:990:\n");
        let Caller::Refused(line) = with.decide(Peer::Uid(1002)) else { panic!("allowed") };
        assert!(line.contains("uid 1002 (cat)") && line.contains("sudo usermod -aG tapstack cat"), "{line}");
        assert!(!line.contains("groupadd") && !line.contains('\n'), "{line}");
        let (_dir, without) = access("root:x:0:\n");
        let Caller::Refused(line) = without.decide(Peer::Uid(1002)) else { panic!("allowed") };
        assert!(line.contains("sudo groupadd --system tapstack; sudo usermod"), "{line}");
    }

    #[test]
    fn an_unknown_or_remote_peer_is_refused() {
        let (_dir, access) = access("tapstack:x:990:ann\n");
        assert!(matches!(access.decide(Peer::Unknown), Caller::Refused(_)));
        assert!(matches!(access.decide(Peer::Untold), Caller::Refused(line) if line.contains("modprobe tcp_diag")));
        assert!(matches!(access.decide(Peer::Remote([10, 0, 0, 1].into())), Caller::Refused(_)));
    }

    #[test]
    fn missing_account_files_refuse_everybody_but_the_fixed_ones() {
        let access = Access::with_files(&[0], "/nonexistent/group".into(), "/nonexistent/passwd".into());
        assert!(matches!(access.decide(Peer::Uid(1000)), Caller::Refused(_)));
        assert_eq!(access.decide(Peer::Uid(0)), Caller::Allowed { uid: 0 });
    }
}
