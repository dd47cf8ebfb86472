//! Unix domain sockets, at addresses of the form `unix:/path`: for processes of one user on one machine.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::net::{UnixListener, UnixStream};

use crate::stream::{Listener, Stream, UNIX_PREFIX};

pub(crate) async fn connect(path: &str) -> io::Result<Stream> {
    check_path(Path::new(path))?;
    let connected = UnixStream::connect(path).await?;
    Ok(stream(connected, format!("{UNIX_PREFIX}{path}")))
}

/// Listens at `path`, for this user alone. A file that was left behind by a process that ended is replaced.
pub(crate) async fn bind(path: &str) -> io::Result<Box<dyn Listener>> {
    let path = Path::new(path);
    check_path(path)?;
    // Bound aside and moved there, so that at no time others may connect.
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    check_path(&aside)?;
    check_free(path).await?;
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&aside)?;
    let bound = fs::set_permissions(&aside, fs::Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(&aside))
        .and_then(|file| fs::rename(&aside, path).map(|()| (file.dev(), file.ino())));
    match bound {
        Ok(file) => Ok(Box::new(UnixSocket {
            socket,
            path: path.to_owned(),
            file,
            accepted: 0,
        })),
        Err(error) => {
            drop(fs::remove_file(&aside));
            Err(error)
        }
    }
}

/// Whether nobody listens at `path`, and nothing but a socket would be replaced.
async fn check_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => {
            let text = format!("{} is there already, and is no socket", path.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
    }
    match UnixStream::connect(path).await {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
            ) =>
        {
            Ok(())
        }
        // A listener whose queue is full, or one of another user, lives too.
        Ok(_) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn check_path(path: &Path) -> io::Result<()> {
    let bytes = path.as_os_str().len();
    if !path.is_absolute() {
        let text = format!("{path:?} cannot name a Unix domain socket: it is no absolute path");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    match SocketAddr::from_pathname(path) {
        Ok(_) => Ok(()),
        Err(_) => {
            let text = format!(
                "a path of {bytes} bytes cannot name a Unix domain socket: most systems allow some 100"
            );
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

struct UnixSocket {
    socket: UnixListener,
    path: PathBuf,
    /// Device and number of its file.
    file: (u64, u64),
    accepted: u64,
}

#[async_trait]
impl Listener for UnixSocket {
    fn local_address(&self) -> io::Result<String> {
        Ok(format!("{UNIX_PREFIX}{}", self.path.display()))
    }

    async fn accept(&mut self) -> io::Result<Stream> {
        let (accepted, _) = self.socket.accept().await?;
        // Callers have no name of their own.
        self.accepted += 1;
        let caller = format!("{UNIX_PREFIX}{}#{}", self.path.display(), self.accepted);
        Ok(stream(accepted, caller))
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another may have taken its place.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if ours {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn stream(stream: UnixStream, peer_address: String) -> Stream {
    let (reader, writer) = stream.into_split();
    Stream {
        reader: Box::new(reader),
        writer: Box::new(writer),
        peer_address,
    }
}
