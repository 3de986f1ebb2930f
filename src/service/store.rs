//! ● Names in the descriptor store of systemd: what a listener is called there, so that the next start of
//! the service knows what it gets back.
//!
//! The name of a stored descriptor is all that comes back with it. It holds the address as bound, and for a
//! Unix socket the file, because the kernel knows only the temporary name that this had at first:
//!
//! ```text
//! appserver/127.0.0.1%3A8080    appserver/@name    appserver//run/app.sock;DEVICE.INODE
//! ```
//!
//! systemd allows 255 bytes of printable ASCII without a colon (sd_pid_notify_with_fds(3)).

use std::os::fd::OwnedFd;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::net::{ListenAddr, Listener, OwnedPath};
use crate::sys::fs::FileId;

const PREFIX: &str = "appserver/";
const MAX_NAME: usize = 255;
/// What systemd, this format or the encoding itself need for something else.
const RESERVED: &AsciiSet = &CONTROLS.add(b':').add(b'%').add(b';');

/// A listener that the store has kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    address: String,
    owned: Option<OwnedPath>,
}

/// What to call it in the store; `None` for what does not belong there: it is somebody else's, or its path
/// is too long.
pub fn name(listener: &Listener) -> Option<String> {
    if listener.given.is_some() {
        return None;
    }
    let name = match (&listener.addr, &listener.owned) {
        (ListenAddr::Tcp(_) | ListenAddr::Host { .. } | ListenAddr::Abstract(_), _) => {
            escape(&listener.local)
        }
        (ListenAddr::Unix(_), Some(OwnedPath { path, dev, ino })) => {
            let address = ListenAddr::Unix(path.clone()).to_string();
            format!("{};{dev}.{ino}", escape(&address))
        }
        _ => return None,
    };
    let name = format!("{PREFIX}{name}");
    (name.len() <= MAX_NAME).then_some(name)
}

/// Reads a name of [`name`]; `None` for those that others have given.
pub fn read(name: &str) -> Option<Kept> {
    let text = name.strip_prefix(PREFIX)?;
    let (address, file) = match text.split_once(';') {
        Some((address, file)) => (address, Some(file.split_once('.')?)),
        None => (text, None),
    };
    let address = percent_decode_str(address).decode_utf8().ok()?.into_owned();
    let owned = match (ListenAddr::parse(&address).ok()?, file) {
        (ListenAddr::Unix(path), Some((dev, ino))) => {
            Some(OwnedPath { path, dev: dev.parse().ok()?, ino: ino.parse().ok()? })
        }
        (ListenAddr::Tcp(_) | ListenAddr::Abstract(_), None) => None,
        _ => return None,
    };
    Some(Kept { address, owned })
}

impl Kept {
    /// The listener again.
    ///
    /// # Errors
    /// When nobody can reach it any more, or it is none.
    pub fn into_listener(self, fd: OwnedFd) -> Result<Listener, String> {
        let Kept { address, owned } = self;
        let given_up = |reason: String| format!("the stored socket of {address} is given up: {reason}");
        if let Some(OwnedPath { path, dev, ino }) = &owned {
            let found = FileId::of_path(path).map_err(|error| given_up(error.to_string()))?;
            if found != Some(FileId { dev: *dev, ino: *ino }) {
                return Err(given_up("its file was removed or replaced".to_owned()));
            }
        }
        let listener = Listener::kept(address.clone(), fd, owned.clone());
        listener.map_err(|error| given_up(error.to_string()))
    }
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::BindOptions;

    fn bind(address: &str) -> Listener {
        Listener::bind(address, &BindOptions { backlog: 16, ..BindOptions::default() }).unwrap()
    }

    #[test]
    fn a_listener_is_found_again_by_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a:b %é;.sock");
        let abstract_name = format!("@appserver-store-{}", std::process::id());
        for address in ["127.0.0.1:0", "localhost:0", &abstract_name, &format!("unix:{}", path.display())] {
            let listener = bind(address);
            let name = name(&listener).unwrap();
            assert!(name.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b':'), "{name}");
            let kept = read(&name).unwrap().into_listener(listener.fd.try_clone().unwrap()).unwrap();
            assert_eq!((&kept.local, &kept.owned), (&listener.local, &listener.owned), "{name}");
            assert!(kept.stored);
        }
    }

    #[test]
    fn a_socket_whose_file_is_another_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = bind(path.to_str().unwrap());
        let name = name(&listener).unwrap();
        std::fs::remove_file(&path).unwrap();
        let error = read(&name).unwrap().into_listener(listener.fd).unwrap_err();
        assert!(error.contains("removed or replaced"), "{error}");
    }

    #[test]
    fn names_of_others_are_left_alone() {
        for other in [
            "app.socket",
            "unknown",
            "appserver/",
            "appserver/%FF",
            "appserver/%zz",
            "appserver//x",
            "appserver/@x;1.2",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn what_has_no_room_for_its_name_is_not_stored() {
        let mut listener = bind("127.0.0.1:0");
        listener.local = "é".repeat(100);
        assert_eq!(name(&listener), None);
    }
}
