//! Where the libraries of the server for Python are.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// File name of the plugin.
pub const FILE: &str = "libappserver_python.so";

/// File name of the server as a library, for the executable of an interpreter.
pub const GUEST: &str = "libappserver_guest.so";

/// Names directories of plugins, separated by colons.
const VARIABLE: &str = "APPSERVER_PLUGIN_DIR";

/// Where it is installed.
const INSTALLED: [&str; 2] = ["/usr/lib/appserver", "/usr/local/lib/appserver"];

/// The plugin is in none of its places.
#[derive(Debug, Error)]
#[error(
    "the Python plugin {FILE} is not there; looked for {}. \
     Build it with: cargo build --workspace (--release as the server), and put it next to the server or into \
     /usr/local/lib/appserver; or name its directory with plugin-dir",
    list(.tried)
)]
pub struct PluginNotFound {
    /// Every file that was looked for.
    pub tried: Vec<PathBuf>,
}

/// Finds the plugin: in the directories of `plugin-dir`, in those of the environment variable
/// `APPSERVER_PLUGIN_DIR`, about the running program, where it is installed.
///
/// # Errors
/// When it is nowhere.
pub fn plugin_library(configured: &[PathBuf]) -> Result<PathBuf, PluginNotFound> {
    let tried = places(configured, FILE);
    match tried.iter().find(|file| file.is_file()) {
        Some(file) => Ok(file.clone()),
        None => Err(PluginNotFound { tried }),
    }
}

/// Finds the server as a library, in the same places as the plugin.
pub fn guest_library(configured: &[PathBuf]) -> Option<PathBuf> {
    // Between these the loader separates names (ld.so(8), `LD_PRELOAD`).
    let can_be_named =
        |file: &PathBuf| !file.as_os_str().as_encoded_bytes().iter().any(|it| b" :".contains(it));
    places(configured, GUEST).into_iter().filter(can_be_named).find(|file| file.is_file())
}

fn places(configured: &[PathBuf], name: &str) -> Vec<PathBuf> {
    // A program that was replaced since is told with a mark behind its name, in the same directory.
    let program = env::current_exe().ok();
    candidates(configured, env::var_os(VARIABLE).as_deref(), program.as_deref(), name)
}

fn candidates(
    configured: &[PathBuf],
    variable: Option<&OsStr>,
    program: Option<&Path>,
    name: &str,
) -> Vec<PathBuf> {
    let mut directories = configured.to_vec();
    directories
        .extend(variable.iter().flat_map(env::split_paths).filter(|path| !path.as_os_str().is_empty()));
    if let Some(directory) = program.and_then(Path::parent) {
        directories.push(directory.to_owned());
        // Cargo puts a library into deps/ when it builds it for something else, and examples and
        // tests into directories of their own.
        directories.push(directory.join("deps"));
        directories.extend(directory.parent().map(Path::to_owned));
        directories.extend(directory.parent().map(|prefix| prefix.join("lib/appserver")));
    }
    directories.extend(INSTALLED.map(PathBuf::from));

    let mut files = Vec::new();
    for directory in directories {
        // The working directory may be another by the time the file is opened.
        let file = std::path::absolute(directory.join(name)).unwrap_or_else(|_| directory.join(name));
        if !files.contains(&file) {
            files.push(file);
        }
    }
    files
}

fn list(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_goes_before_what_is_near_and_that_before_what_is_installed() {
        let configured = ["/one", "/two"].map(PathBuf::from);
        let found = candidates(
            &configured,
            Some(OsStr::new("/three::/one")),
            Some(Path::new("/usr/bin/appserver")),
            FILE,
        );
        let directories: Vec<&str> = found.iter().filter_map(|file| file.parent()?.to_str()).collect();
        let expected = [
            "/one",
            "/two",
            "/three",
            "/usr/bin",
            "/usr/bin/deps",
            "/usr",
            "/usr/lib/appserver",
            "/usr/local/lib/appserver",
        ];
        assert_eq!(directories, expected);
        assert!(found.iter().all(|file| file.ends_with(FILE)));
    }

    #[test]
    fn an_example_of_cargo_finds_the_plugin_of_its_profile() {
        let target = tempfile::tempdir().expect("a directory");
        let plugin = target.path().join(FILE);
        std::fs::write(&plugin, "").expect("a file");
        let found = candidates(&[], None, Some(&target.path().join("examples/testapp")), FILE);
        assert!(found.contains(&plugin), "{found:?}");
        assert_eq!(plugin_library(&[target.path().to_owned()]).expect("found"), plugin);
    }

    #[test]
    fn a_plugin_that_is_nowhere_is_told_with_the_way_to_get_it() {
        let error = PluginNotFound { tried: candidates(&["plugins".into()], None, None, FILE) }.to_string();
        let here = env::current_dir().expect("a directory").join("plugins").join(FILE);
        assert!(error.contains(&format!("looked for {}, /usr/lib/appserver/", here.display())), "{error}");
        assert!(error.contains("cargo build --workspace") && error.contains("plugin-dir"), "{error}");
    }

    #[test]
    fn a_guest_that_the_loader_cannot_be_told_of_is_passed_over() {
        let root = tempfile::tempdir().expect("a directory");
        let [spaced, plain] = ["with space", "plain"].map(|name| root.path().join(name));
        for directory in [&spaced, &plain] {
            std::fs::create_dir(directory).expect("a directory");
            std::fs::write(directory.join(GUEST), "").expect("a file");
        }
        assert_eq!(guest_library(&[spaced, plain.clone()]), Some(plain.join(GUEST)));
    }
}
