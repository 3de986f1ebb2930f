//! What a user needs to be allowed for the server to start, reload and stop, asked of the system as that
//! user: nothing is made or changed.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Refusal, whoami};
use crate::boot::StartContext;
use crate::cli;
use crate::config::Config;
use crate::config::context::Reading;
use crate::net::ListenAddr;
use crate::sys::cred;
use crate::sys::fs::{Right, may};

/// What this process may not do of what a master does once it has its final user: every file that is
/// written then, and what each reload executes and enters.
pub fn lacks(config: &Config, start: &StartContext) -> Vec<Refusal> {
    let base = config.base_directory(&start.cwd);
    let (who, mut found) = (whoami(), Vec::new());
    let mut tell = |option, outcome: Result<(), String>| {
        found.extend(outcome.err().map(|message| Refusal { option, message }));
    };
    let binary = start.binary(config);
    tell("chdir", start_directory(&start.cwd, &who));
    if base != start.cwd {
        tell("chdir", enter(&base).map_err(|error| format!("cannot enter {}: {error}", base.display())));
    }
    tell("binary-path", executable(&binary, &who));
    for path in &config.master_fifos {
        tell("master-fifo", fifo(&base.join(path), &who));
    }
    // With drop-after-init they are opened before.
    let late = !config.credentials.drop_after_init;
    let pidfiles = [
        ("pidfile2", config.pidfile2.as_ref().filter(|_| late)),
        ("safe-pidfile2", config.safe_pidfile2.as_ref()),
        ("safe-pidfile", config.safe_pidfile.as_ref()),
    ];
    for (option, path) in pidfiles {
        if let Some(path) = path {
            tell(option, replaceable(&base.join(path), &who));
        }
    }
    if let Some(path) = config.logto2.as_ref().filter(|_| late) {
        let path = base.join(path);
        let told = |error| format!("cannot open the log file {}: {who} {error}", path.display());
        tell("logto2", can_write(&path).map_err(told));
    }
    found
}

fn enter(directory: &Path) -> io::Result<()> {
    may(directory, &[Right::Execute])
}

fn start_directory(directory: &Path, who: &str) -> Result<(), String> {
    enter(directory).map_err(|error| {
        format!(
            "{who} cannot enter {}, where the server is started and each reload starts it again: {error}; start it \
             in a directory open to that user",
            directory.display()
        )
    })
}

fn executable(binary: &Path, who: &str) -> Result<(), String> {
    may(binary, &[Right::Execute]).map_err(|error| {
        format!("{who} cannot execute {}, as the start and each reload do: {error}", binary.display())
    })
}

fn fifo(path: &Path, who: &str) -> Result<(), String> {
    match path.symlink_metadata() {
        Ok(found) if !found.file_type().is_fifo() => Err(format!(
            "{}: something that is not a FIFO is in the way; remove it or choose another path",
            path.display()
        )),
        Ok(found) if found.uid() != cred::effective_uid().as_raw() => Err(format!(
            "{} belongs to uid {}, not to {who}; remove it or choose another path",
            path.display(),
            found.uid()
        )),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => makeable(path, who),
        Err(error) => Err(format!("{who} cannot reach {}: {error}", path.display())),
    }
}

/// A file that is replaced by another one of its name: it is the directory that counts.
fn replaceable(path: &Path, who: &str) -> Result<(), String> {
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => {
            Err(format!("{} is not a regular file; remove it or choose another path", path.display()))
        }
        _ => makeable(path, who),
    }
}

fn makeable(path: &Path, who: &str) -> Result<(), String> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    may(directory, &[Right::Write, Right::Execute]).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::NotFound => "make the directory",
            _ => "give the directory to that user",
        };
        format!(
            "{who} cannot make {} in its directory: {error}; {remedy} (RuntimeDirectory= of systemd does), or choose \
             another path",
            path.display()
        )
    })
}

/// Whether a file can be written, or made where there is none.
///
/// # Errors
/// What is wrong, with the path; a verb comes first.
pub fn can_write(path: &Path) -> Result<(), String> {
    let told = |what: &Path, error: io::Error| format!("cannot write {}: {error}", what.display());
    match path.metadata() {
        Ok(found) if found.is_dir() => {
            Err(format!("cannot write {}, which is a directory; give the path of a file", path.display()))
        }
        Ok(_) => may(path, &[Right::Write]).map_err(|error| told(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            may(directory, &[Right::Write, Right::Execute])
                .map_err(|error| format!("cannot make {} in its directory: {error}", path.display()))
        }
        Err(error) => Err(told(path, error)),
    }
}

/// Whether sockets can be made in their directories: asked as the user that binds them, which is the one
/// that starts the server.
pub(super) fn socket_directories(config: &Config, start: &StartContext) -> Result<(), String> {
    let base = config.base_directory(&start.cwd);
    for spec in &config.listeners {
        if let Ok(ListenAddr::Unix(path)) = ListenAddr::parse(&spec.address)
            && let Err(error) = makeable(&base.join(path), &whoami())
        {
            return Err(format!("cannot bind {}: {error} ({})", spec.address, spec.origin));
        }
    }
    Ok(())
}

/// Whether this process can read the configuration once more, as each zygote does.
pub(super) fn configuration(start: &StartContext) -> Result<(), String> {
    // Relative names start there. Whether it can be entered is asked by `lacks`, in better words.
    if std::env::set_current_dir(&start.cwd).is_err() {
        return Ok(());
    }
    cli::configuration(Reading::first(), start.argv.iter().cloned()).map(drop).map_err(|error| {
        format!("the configuration, which each generation reads anew as {}: {error}", whoami())
    })
}

/// Whether a new root has what the server itself needs in it: all the rest is the application's.
///
/// # Errors
/// What it lacks, and how to give it that.
pub fn inside(config: &Config, start: &StartContext) -> Result<(), Refusal> {
    let root = config.credentials.chroot.as_deref().unwrap_or(Path::new("/"));
    let relative = [
        ("pidfile", &config.pidfile),
        ("logto", &config.logto),
        ("daemonize", &config.daemonize),
        ("daemonize2", &config.daemonize2),
    ];
    for (option, path) in relative {
        if let Some(path) = path.as_ref().filter(|path| path.is_relative()) {
            let message = format!(
                "{} is relative, and would be another file from inside the chroot; give an absolute path",
                path.display()
            );
            return Err(Refusal { option, message });
        }
    }
    let binary = start.binary(config);
    may(&binary, &[Right::Execute]).map_err(|error| {
        let message = format!(
            "{} has no binary for the start and reloads: {} inside: {error}; copy it there, with the libraries \
             that it is linked to, and name it by binary-path",
            root.display(),
            binary.display()
        );
        Refusal { option: "chroot", message }
    })
}

/// Whether a new root, which this process has entered, has what no image of the server can do without.
pub(super) fn mounted(root: &Path) -> Result<(), Refusal> {
    let needed = [Path::new("/proc/self/fd"), Path::new("/dev/null")];
    if let Some(missing) = needed.into_iter().find(|path| !path.exists()) {
        let mount = missing.components().nth(1).map(|name| Path::new("/").join(name)).unwrap_or_default();
        let message = format!(
            "{} has no {}; mount it there before the start: mount --bind {} {}{}",
            root.display(),
            missing.display(),
            mount.display(),
            root.display(),
            mount.display()
        );
        return Err(Refusal { option: "chroot", message });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_can_be_written_where_its_directory_allows() {
        let directory = tempfile::tempdir().expect("directory");
        let at = |name: &str| directory.path().join(name);
        assert_eq!(can_write(&at("new")), Ok(()));
        std::fs::write(at("old"), "").expect("file");
        assert_eq!(can_write(&at("old")), Ok(()));
        assert!(can_write(&at("missing/new")).unwrap_err().contains("cannot make"));
        assert!(can_write(directory.path()).unwrap_err().contains("is a directory"));
        assert!(can_write(&at("old/new")).unwrap_err().contains("cannot write"));
    }
}
