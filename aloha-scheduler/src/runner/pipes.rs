//! The pipes between the processes of an application and the files their output is kept in.

use std::future::Future;
use std::io::{self, PipeReader, PipeWriter};
use std::path::Path;
use std::process::Stdio;

use tokio::net::unix::pipe::Receiver;

use super::output::RollingOutput;
use super::settings::LogSettings;
use crate::worker::LogStream;

/// Our ends of the pipes that the processes of an application write to.
#[derive(Debug)]
pub(super) struct Output {
    stdout: PipeWriter,
    stderr: PipeWriter,
}

impl Output {
    pub(super) fn stdout(&self) -> io::Result<Stdio> {
        self.stdout.try_clone().map(Stdio::from)
    }

    pub(super) fn stderr(&self) -> io::Result<Stdio> {
        self.stderr.try_clone().map(Stdio::from)
    }
}

/// Makes the pipes and their files. The future copies from the ones to the others, until nobody can write any more.
pub(super) fn open(
    directory: &Path,
    settings: LogSettings,
) -> io::Result<(Output, impl Future<Output = ()> + Send + 'static)> {
    let (out, stdout) = io::pipe()?;
    let (err, stderr) = io::pipe()?;
    let out = keep(directory, LogStream::Stdout, settings, out)?;
    let err = keep(directory, LogStream::Stderr, settings, err)?;
    let copied = async {
        tokio::join!(out, err);
    };
    Ok((Output { stdout, stderr }, copied))
}

fn keep(
    directory: &Path,
    stream: LogStream,
    settings: LogSettings,
    pipe: PipeReader,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let output = RollingOutput::create(directory, stream, settings)?;
    let pipe = Receiver::from_owned_fd(pipe.into())?;
    Ok(output.copy(pipe))
}
