//! What a master is told of its ZooKeeper, checked before anything connects.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zookeeper_client::{Acl, Acls, AuthId, Permission};

use crate::recovery_mode::ZooKeeperSettings;

/// The most that a file with secrets may hold.
const AUTH_BYTES_MAX: u64 = 64 << 10;

/// Why a ZooKeeper cannot be used as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZooKeeperError {
    /// No servers are named.
    #[error(
        "recovery mode ZOOKEEPER needs aloha.deploy.zookeeper.url, the servers with their ports: h1:2181,h2:2181,h3:2181"
    )]
    NoUrl,
    /// The servers are not named as they should be.
    #[error(
        "aloha.deploy.zookeeper.url={url}: {reason}; expected such as h1:2181,h2:2181 or h1:2181,h2:2181/chroot"
    )]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The directory is no path of a znode.
    #[error(
        "aloha.deploy.zookeeper.dir={dir}: expected an absolute path such as /aloha, without empty parts, . and .."
    )]
    BadDirectory {
        /// What was given.
        dir: String,
    },
    /// An entry of the access list cannot be read.
    #[error(
        "aloha.deploy.zookeeper.acl={entry}: expected open, creator, or scheme:id:permissions with permissions of cdrwa, \
         such as ip:10.0.0.0/8:cdrwa"
    )]
    BadAcl {
        /// The entry.
        entry: String,
    },
    /// Nodes are to belong to their creator, and nothing says who that is.
    #[error(
        "aloha.deploy.zookeeper.acl=creator needs aloha.deploy.zookeeper.auth.file, which says who the creator is"
    )]
    NobodyCreates,
    /// The file with the secrets could not be read.
    #[error("cannot read aloha.deploy.zookeeper.auth.file {}", path.display())]
    UnreadableAuth {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// The file with the secrets holds something else.
    #[error(
        "aloha.deploy.zookeeper.auth.file {}: expected lines of scheme:secret, such as digest:user:password", path.display()
    )]
    BadAuth {
        /// The file.
        path: PathBuf,
    },
}

/// [`ZooKeeperSettings`] that were found good.
pub(super) struct Checked {
    /// `h1:2181,h2:2181`, without a chroot.
    pub(super) servers: String,
    /// Where everything lies, chroot included: an absolute path without a slash at its end.
    pub(super) root: String,
    pub(super) session_timeout: Duration,
    acl: Vec<Acl>,
    /// Scheme and secret.
    pub(super) auth: Vec<(String, Vec<u8>)>,
    /// What is allowed and hardly meant.
    pub(super) cautions: Vec<String>,
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("servers", &self.servers)
            .field("root", &self.root)
            .field("session_timeout", &self.session_timeout)
            .field("acl", &self.acl)
            .finish_non_exhaustive()
    }
}

impl Checked {
    pub(super) fn new(settings: &ZooKeeperSettings) -> Result<Self, ZooKeeperError> {
        let url = settings.url.as_deref().ok_or(ZooKeeperError::NoUrl)?;
        let (servers, chroot) = split_url(url)?;
        let dir = settings.dir.trim_end_matches('/');
        // The root itself is only for who has a chroot.
        let is_root = settings.dir == "/" && !chroot.is_empty();
        if !is_root && !is_path(dir) {
            return Err(ZooKeeperError::BadDirectory {
                dir: settings.dir.clone(),
            });
        }
        let mut cautions = Vec::new();
        let auth = match &settings.auth_file {
            Some(path) => {
                let auth = read_auth(path)?;
                cautions.extend(exposure(path));
                auth
            }
            None => Vec::new(),
        };
        if !auth.is_empty() && settings.acl.is_empty() {
            cautions.push(
                "the nodes are open to anybody in spite of aloha.deploy.zookeeper.auth.file: \
                 aloha.deploy.zookeeper.acl=creator closes them"
                    .to_owned(),
            );
        }
        let acl = settings.acl.iter().map(|entry| read_acl(entry));
        let mut acl = acl.collect::<Result<Vec<_>, _>>()?;
        if acl.is_empty() {
            acl.push(read_acl("open")?);
        }
        if auth.is_empty() && acl.iter().any(|acl| acl.scheme() == "auth") {
            return Err(ZooKeeperError::NobodyCreates);
        }
        Ok(Self {
            servers,
            root: format!("{chroot}{dir}"),
            session_timeout: settings.session_timeout,
            acl,
            auth,
            cautions,
        })
    }

    /// Who may do what with the nodes that are created.
    pub(super) fn acls(&self) -> Acls<'_> {
        Acls::new(&self.acl)
    }
}

fn split_url(url: &str) -> Result<(String, String), ZooKeeperError> {
    let bad = |reason| ZooKeeperError::BadUrl {
        url: url.to_owned(),
        reason,
    };
    let (servers, chroot) = url.split_at(url.find('/').unwrap_or(url.len()));
    let chroot = chroot.trim_end_matches('/');
    if !chroot.is_empty() && !is_path(chroot) {
        return Err(bad("the chroot is no path"));
    }
    let servers: Vec<_> = servers.split(',').map(str::trim).collect();
    for server in &servers {
        let port = server.rsplit_once(':').map(|(host, port)| {
            !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok()
        });
        match port {
            Some(true) => {}
            _ => return Err(bad("a server is a host, a colon and a port")),
        }
    }
    Ok((servers.join(","), chroot.to_owned()))
}

fn is_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|parts| {
        parts
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(char::is_control))
    })
}

fn read_acl(entry: &str) -> Result<Acl, ZooKeeperError> {
    let bad = || ZooKeeperError::BadAcl {
        entry: entry.to_owned(),
    };
    match entry {
        "open" => return Ok(Acl::new(Permission::ALL, AuthId::anyone())),
        "creator" => return Ok(Acl::new(Permission::ALL, AuthId::authed())),
        _ => {}
    }
    let (scheme, rest) = entry.split_once(':').ok_or_else(bad)?;
    let (id, permissions) = rest.rsplit_once(':').ok_or_else(bad)?;
    if scheme.is_empty() || permissions.is_empty() {
        return Err(bad());
    }
    let permission = permissions.chars().try_fold(Permission::NONE, |all, one| {
        Ok(all
            | match one {
                'c' => Permission::CREATE,
                'd' => Permission::DELETE,
                'r' => Permission::READ,
                'w' => Permission::WRITE,
                'a' => Permission::ADMIN,
                _ => return Err(bad()),
            })
    })?;
    Ok(Acl::new(permission, AuthId::new(scheme, id)))
}

/// That a file with secrets is open to others, where it is.
fn exposure(path: &Path) -> Option<String> {
    // One that was read a moment ago has a mode.
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    let others = mode & 0o066;
    (others != 0).then(|| {
        format!(
            "aloha.deploy.zookeeper.auth.file {path} is open to others than its owner (mode {mode:04o}): chmod 600 {path}",
            path = path.display()
        )
    })
}

fn read_auth(path: &Path) -> Result<Vec<(String, Vec<u8>)>, ZooKeeperError> {
    let mut text = String::new();
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(AUTH_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|cause| ZooKeeperError::UnreadableAuth {
        path: path.to_owned(),
        cause,
    })?;
    let bad = || ZooKeeperError::BadAuth {
        path: path.to_owned(),
    };
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let auth = lines.map(|line| match line.split_once(':') {
        Some((scheme, secret)) if !scheme.is_empty() && !secret.is_empty() => {
            Ok((scheme.to_owned(), secret.as_bytes().to_vec()))
        }
        _ => Err(bad()),
    });
    let auth = auth.collect::<Result<Vec<_>, _>>()?;
    if auth.is_empty() {
        return Err(bad());
    }
    Ok(auth)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> ZooKeeperSettings {
        ZooKeeperSettings {
            url: Some(url.to_owned()),
            ..ZooKeeperSettings::default()
        }
    }

    fn refusal(settings: &ZooKeeperSettings) -> String {
        Checked::new(settings).unwrap_err().to_string()
    }

    #[test]
    fn a_url_is_servers_and_a_chroot() {
        let good = |url, dir: &str| {
            let settings = ZooKeeperSettings {
                dir: dir.to_owned(),
                ..settings(url)
            };
            let checked = Checked::new(&settings).expect("good");
            (checked.servers, checked.root)
        };
        let owned = |servers: &str, root: &str| (servers.to_owned(), root.to_owned());
        assert_eq!(good("h1:2181", "/aloha"), owned("h1:2181", "/aloha"));
        assert_eq!(
            good("h1:2181, [::1]:2182/a/b/", "/aloha/"),
            owned("h1:2181,[::1]:2182", "/a/b/aloha")
        );
        assert_eq!(good("h1:2181/a", "/"), owned("h1:2181", "/a"));
    }

    #[test]
    fn what_is_no_url_no_directory_or_no_acl_says_so() {
        assert!(refusal(&ZooKeeperSettings::default()).contains("aloha.deploy.zookeeper.url"));
        for url in ["", "h1", "h1:x", "h1:2181,", ":2181", "h1:2181//a"] {
            let refusal = refusal(&settings(url));
            assert!(refusal.contains("h1:2181,h2:2181/chroot"), "{refusal}");
        }
        for dir in ["", "aloha", "/", "/a//b", "/a/../b"] {
            let settings = ZooKeeperSettings {
                dir: dir.to_owned(),
                ..settings("h1:2181")
            };
            assert!(refusal(&settings).contains("aloha.deploy.zookeeper.dir="));
        }
        let acl = |entry: &str| ZooKeeperSettings {
            acl: vec![entry.to_owned()],
            ..settings("h1:2181")
        };
        for entry in ["closed", "ip:10.0.0.1:x", "ip:10.0.0.1:", ":id:r"] {
            assert!(refusal(&acl(entry)).contains("permissions of cdrwa"));
        }
        assert!(refusal(&acl("creator")).contains("auth.file"));
        let checked = Checked::new(&acl("digest:user:hash=:rw")).expect("good");
        let expected = Acl::new(
            Permission::READ | Permission::WRITE,
            AuthId::new("digest", "user:hash="),
        );
        assert_eq!(checked.acls().to_vec(), [expected]);
    }

    #[test]
    fn secrets_are_read_from_a_file_and_never_shown() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let settings = ZooKeeperSettings {
            auth_file: Some(file.path().to_owned()),
            acl: vec!["creator".to_owned()],
            ..settings("h1:2181")
        };
        assert!(refusal(&settings).contains("digest:user:password"));
        std::fs::write(file.path(), "# who we are\n\ndigest:user:pass:word\n").expect("written");
        let checked = Checked::new(&settings).expect("good");
        assert_eq!(
            checked.auth,
            [("digest".to_owned(), b"user:pass:word".to_vec())]
        );
        assert!(!format!("{checked:?}").contains("pass"));
        std::fs::write(file.path(), "digest\n").expect("written");
        assert!(refusal(&settings).contains("digest:user:password"));
    }

    #[test]
    fn secrets_that_others_can_read_and_nodes_that_they_do_not_close_are_worth_a_word() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "digest:user:password\n").expect("written");
        let cautions = |mode, acl: &[&str]| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(file.path(), mode).expect("ours");
            let settings = ZooKeeperSettings {
                auth_file: Some(file.path().to_owned()),
                acl: acl.iter().map(|entry| (*entry).to_owned()).collect(),
                ..settings("h1:2181")
            };
            Checked::new(&settings).expect("good").cautions
        };
        for (mode, acl) in [(0o600, "creator"), (0o400, "creator"), (0o600, "open")] {
            assert_eq!(cautions(mode, &[acl]), [""; 0], "{mode:o} {acl}");
        }
        for (mode, shown) in [(0o644, "0644"), (0o640, "0640"), (0o602, "0602")] {
            let path = file.path().display();
            let expected = format!(
                "aloha.deploy.zookeeper.auth.file {path} is open to others than its owner (mode {shown}): chmod 600 {path}"
            );
            assert_eq!(cautions(mode, &["creator"]), [expected]);
        }
        let [open] = &cautions(0o600, &[])[..] else {
            panic!("one word");
        };
        assert!(
            open.contains("aloha.deploy.zookeeper.acl=creator"),
            "{open}"
        );
        assert_eq!(cautions(0o666, &[]).len(), 2);
        let without_secrets = Checked::new(&settings("h1:2181")).expect("good");
        assert_eq!(without_secrets.cautions, [""; 0]);
    }
}
