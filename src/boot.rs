//! Which process this is: started by a user, or executed by a master as zygote or as its own successor.
//!
//! A master that executes the binary passes a memory file with a known name; the new image finds it
//! among its descriptors. Neither arguments nor environment are touched, so both images see exactly
//! what the user gave the first one, and no variable of ours leaks into the application.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::config::Config;
use crate::net::ListenerState;
use crate::service::manager::VARIABLES;
use crate::sys;

/// Name of the memory file.
const BOOT_FILE: &str = "appserver-boot";
/// Version of [`Envelope`]; its meaning may only grow.
const ENVELOPE_VERSION: u32 = 1;

/// Whom a boot file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootRole {
    /// The same process, with a new image.
    Master,
    /// A child that loads the application.
    Zygote,
    /// The same zygote, in the executable of an interpreter.
    Guest,
    /// A child that tries whether the application loads, in the executable of an interpreter.
    Trial,
    /// A second master on the same listeners.
    Refork,
}

/// What a boot file holds. The outer fields are readable by every release; `body` may not be.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    version: u32,
    /// Whom it is for.
    pub role: BootRole,
    /// The master's pid: the reader's own after a re-exec, its parent's for all others.
    master: i32,
    /// Listening sockets passed along.
    pub listeners: Vec<ListenerState>,
    body: serde_json::Value,
}

impl Envelope {
    /// Packs `body` for a process of this role.
    ///
    /// # Errors
    /// When the kernel refuses a memory file.
    pub fn write(
        role: BootRole,
        listeners: Vec<ListenerState>,
        body: &impl Serialize,
    ) -> io::Result<OwnedFd> {
        let master = match role {
            BootRole::Guest | BootRole::Trial => sys::process::parent(),
            BootRole::Master | BootRole::Zygote | BootRole::Refork => sys::process::this(),
        };
        let master = master.as_raw();
        let body = serde_json::to_value(body)?;
        let envelope = Envelope { version: ENVELOPE_VERSION, role, master, listeners, body };
        let name = CString::new(BOOT_FILE).expect("the name has no NUL");
        let mut file = fs::File::from(sys::fd::memfd(&name)?);
        file.write_all(&serde_json::to_vec(&envelope)?)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// The part that only the same or a compatible release understands.
    ///
    /// # Errors
    /// When it does not.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.body)
    }

    /// True when this process is the one it was written for.
    ///
    /// A memory file that reached somebody else by accident must not make a master or a zygote of it.
    fn is_ours(&self) -> bool {
        let expected = match self.role {
            BootRole::Master => sys::process::this(),
            BootRole::Zygote | BootRole::Guest | BootRole::Trial | BootRole::Refork => sys::process::parent(),
        };
        self.version == ENVELOPE_VERSION && expected.as_raw() == self.master
    }
}

/// Looks for a boot file among the inherited descriptors; takes it away, so that no child sees it.
///
/// # Errors
/// When there is one for this process that cannot be read, or one for a zygote whose master is gone.
pub fn take_envelope() -> io::Result<Option<Envelope>> {
    for raw in sys::fd::open_fds()? {
        if raw > 2 && sys::fd::memfd_name(raw).as_deref() == Some(BOOT_FILE) {
            let envelope = read_envelope(raw)?;
            if envelope.is_ours() {
                return Ok(Some(envelope));
            }
            match envelope.role {
                BootRole::Zygote | BootRole::Guest => {
                    return Err(io::Error::other("the master of this zygote is gone"));
                }
                BootRole::Trial => {
                    return Err(io::Error::other("nobody waits for the outcome of this trial"));
                }
                BootRole::Master | BootRole::Refork => {}
            }
        }
    }
    Ok(None)
}

fn read_envelope(raw: RawFd) -> io::Result<Envelope> {
    let mut file = fs::File::from(sys::fd::claim(raw)?);
    sys::fd::set_cloexec(file.as_fd(), true)?;
    let mut text = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// What the user started: remembered once, given to every image unchanged.
#[derive(Debug, Clone)]
pub struct StartContext {
    /// Arguments, the program's name first.
    pub argv: Vec<OsString>,
    /// Environment.
    pub env: Vec<(OsString, OsString)>,
    /// Directory as the user named it: a `current` symlink in it is resolved anew by each image.
    pub cwd: PathBuf,
    /// The binary as the user named it, absolute; what a reload executes.
    pub binary: PathBuf,
}

impl StartContext {
    /// Reads it from the process.
    ///
    /// # Errors
    /// When the current directory is gone.
    pub fn capture() -> io::Result<Self> {
        let argv: Vec<OsString> = env::args_os().collect();
        let cwd = logical_cwd()?;
        let binary = locate_binary(argv.first().map(OsString::as_os_str), &cwd)?;
        Ok(StartContext { argv, env: env::vars_os().collect(), cwd, binary })
    }

    /// Makes it what an image executed inside a new root directory would find: it starts at the top.
    ///
    /// # Errors
    /// When the binary cannot be named from there.
    pub fn enter_root(&mut self) -> io::Result<()> {
        self.cwd = PathBuf::from("/");
        self.binary = locate_binary(self.argv.first().map(OsString::as_os_str), &self.cwd)?;
        Ok(())
    }

    /// What a zygote or a re-exec executes.
    pub fn binary(&self, config: &Config) -> PathBuf {
        match &config.binary_path {
            Some(path) => self.cwd.join(path),
            None => self.binary.clone(),
        }
    }

    /// Arguments for `execve`.
    pub fn argv_c(&self) -> Vec<CString> {
        self.argv.iter().map(|argument| c_string(argument)).collect()
    }

    /// Environment for the next image of this process, unchanged.
    pub fn env_c(&self) -> Vec<CString> {
        self.env.iter().map(environment_entry).collect()
    }

    /// Environment for other processes: without what the service manager has told this one alone.
    pub fn child_env_c(&self) -> Vec<CString> {
        let theirs = |(name, _): &&(OsString, OsString)| !VARIABLES.iter().any(|ours| name == ours);
        self.env.iter().filter(theirs).map(environment_entry).collect()
    }

    /// A variable, as the user or the service manager has set it.
    pub fn var(&self, name: &str) -> Option<&OsStr> {
        self.env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
    }

    /// Takes variables out, for good.
    pub fn take_vars(&mut self, names: &[&str]) -> Vec<(OsString, OsString)> {
        self.env.extract_if(.., |(known, _)| names.iter().any(|name| known == name)).collect()
    }

    /// Sets a variable for the next images.
    pub fn set_var(&mut self, name: &str, value: String) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.into(), value.into()));
    }
}

/// `NAME=value`
pub(crate) fn environment_entry((name, value): &(OsString, OsString)) -> CString {
    let mut pair = name.clone().into_vec();
    pair.push(b'=');
    pair.extend_from_slice(value.as_bytes());
    c_string(OsStr::from_bytes(&pair))
}

/// The operating system gave us the text without NULs, or the configuration refused them.
pub(crate) fn c_string(text: &OsStr) -> CString {
    let bytes: Vec<u8> = text.as_bytes().iter().copied().take_while(|byte| *byte != 0).collect();
    CString::new(bytes).expect("NUL bytes were cut")
}

/// The directory as the shell names it (`PWD`), if that is where we are; else as the kernel names it.
fn logical_cwd() -> io::Result<PathBuf> {
    let here = env::current_dir()?;
    let Some(named) = env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute()) else {
        return Ok(here);
    };
    let same = match (fs::metadata(&named), fs::metadata(&here)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    };
    Ok(if same { named } else { here })
}

/// Finds the binary by the name it was started with, not by `/proc/self/exe`: after an upgrade that
/// is the old, deleted file.
fn locate_binary(name: Option<&OsStr>, cwd: &Path) -> io::Result<PathBuf> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return env::current_exe() };
    if name.as_bytes().contains(&b'/') {
        let path = cwd.join(name);
        return if path.is_file() { Ok(path) } else { env::current_exe() };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&path).map(|directory| cwd.join(directory).join(name)).find(|path| path.is_file());
    found.map_or_else(env::current_exe, Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_passed_on_as_it_was() {
        let env = vec![("A".into(), "1=2".into()), ("LANG".into(), "".into())];
        let start = StartContext { argv: vec!["a".into()], env, cwd: "/".into(), binary: "/bin/true".into() };
        assert_eq!(start.env_c(), [c"A=1=2".to_owned(), c"LANG=".to_owned()]);
    }
}
