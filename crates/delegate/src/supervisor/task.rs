//! The task's own process: how it is started, and its three streams.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt, chown},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use legation_wire::message::{Stream, Work};
use rustix::io::{Errno, ioctl_fionbio, read, write};

use super::order::{Begin, RunAs};
use crate::policy;

/// A started task.
#[derive(Debug)]
pub(super) struct Task {
    /// The number of its process.
    pub(super) pid: i32,
    /// What it writes, until it closes it.
    outputs: [Option<OwnedFd>; 2],
    stdin: Option<OwnedFd>,
    unfed: Vec<u8>,
}

impl Task {
    /// Starts the script. The error is a sentence for the person who submitted it.
    pub(super) fn start(begin: &Begin) -> Result<Self, String> {
        let Work::Shell { script, interpreter, env, cwd, stdin } = &begin.assignment.work else {
            return Err("a supervisor only runs scripts".to_owned());
        };
        let room = Room::make(begin, script).map_err(|error| {
            format!("cannot make the task's directory {}: {error}; check TMPDIR of the delegate", begin.room)
        })?;
        let cwd = cwd.as_ref().map_or(room.work, PathBuf::from);
        if !cwd.is_dir() {
            return Err(format!("the working directory {cwd:?} does not exist on this delegate"));
        }
        let program = policy::program(interpreter);
        let mut command = Command::new(program);
        command.args(interpreter.iter().skip(1)).arg(room.script).current_dir(cwd).env_clear();
        command.envs(begin.env.iter().map(|(name, value)| (name, value)));
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.envs(begin.assignment.secrets.iter().map(|secret| (&secret.name, secret.value.expose())));
        // Again, because a task must not remove the mark by which its leftovers are found.
        command.envs(begin.env.iter().filter(|(name, _)| name.starts_with(crate::runner::RESERVED)).cloned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(RunAs { uid, gid }) = begin.user {
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().map_err(|error| explain(program, &error))?;
        Self::adopt(child, stdin.clone()).map_err(|error| format!("cannot read the task's output: {error}"))
    }

    fn adopt(mut child: Child, unfed: Vec<u8>) -> io::Result<Self> {
        let outputs = [child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from)];
        let stdin = child.stdin.take().map(OwnedFd::from).filter(|_| !unfed.is_empty());
        for fd in outputs.iter().chain([&stdin]).flatten() {
            ioctl_fionbio(fd, true)?;
        }
        Ok(Self { pid: child.id() as i32, outputs, stdin, unfed })
    }

    /// The streams that may still be read.
    pub(super) fn outputs(&self) -> impl Iterator<Item = (Stream, &OwnedFd)> {
        let streams = [Stream::Stdout, Stream::Stderr].into_iter().zip(&self.outputs);
        streams.filter_map(|(stream, fd)| Some((stream, fd.as_ref()?)))
    }

    /// Standard input while there is something to write to it.
    pub(super) fn stdin(&self) -> Option<&OwnedFd> {
        self.stdin.as_ref()
    }

    /// Reads what is there; `None` when there is nothing now, or nothing ever again.
    pub(super) fn read<'b>(&mut self, stream: Stream, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let fd = self.outputs[stream as usize].as_ref()?;
        match read(fd.as_fd(), &mut *buffer) {
            Ok(0) => self.outputs[stream as usize] = None,
            Ok(count) => return Some(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.outputs[stream as usize] = None,
        }
        None
    }

    /// Writes what standard input takes, and closes it after the last byte or when nobody reads it.
    pub(super) fn feed(&mut self) {
        let Some(stdin) = &self.stdin else { return };
        match write(stdin, &self.unfed) {
            Ok(count) => drop(self.unfed.drain(..count)),
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => self.unfed.clear(),
        }
        if self.unfed.is_empty() {
            self.stdin = None;
        }
    }
}

/// The files of one attempt: its script, readable only by the task's user and never an argument, and an
/// empty directory to work in.
struct Room {
    script: PathBuf,
    work: PathBuf,
}

impl Room {
    fn make(begin: &Begin, script: &str) -> io::Result<Self> {
        let room = Path::new(&begin.room);
        let made = Self { script: room.join("script"), work: room.join("work") };
        DirBuilder::new().mode(0o700).create(room)?;
        DirBuilder::new().mode(0o700).create(&made.work)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made.script)?;
        file.write_all(script.as_bytes())?;
        if let Some(RunAs { uid, gid }) = begin.user {
            for path in [&made.script, &made.work, room] {
                chown(path, Some(uid), Some(gid))?;
            }
        }
        Ok(made)
    }
}

/// Removes the files of an attempt; what cannot be removed is left to the machine's own cleaning.
pub(crate) fn clear_room(room: &str) {
    let _ = fs::remove_dir_all(room);
}

fn explain(program: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            format!("the interpreter {program:?} does not exist on this delegate: install it or name another")
        }
        io::ErrorKind::PermissionDenied => {
            format!("the interpreter {program:?} may not be executed by the task's user: {error}")
        }
        _ => format!("cannot start the interpreter {program:?}: {error}"),
    }
}
