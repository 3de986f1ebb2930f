//! The interpreter: what was chosen, what it says about itself, whether it can be used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::choice::Choice;
use super::error::{FindError, Trouble};
use super::{library, query};

/// How long an executable may take to say which Python it is. A cold disk takes seconds, a version
/// manager's shim tenths of one.
const PATIENCE: Duration = Duration::from_secs(20);

/// Major and minor number of the oldest Python that the plugin is built for.
const OLDEST: (u8, u8) = (3, 9);

/// Where the code of an interpreter is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// In a shared library, `libpython3.x.so.1.0`, which any process can load.
    Library(PathBuf),
    /// In its executable, which a process has to be.
    Executable {
        /// The library that holds the same, where there is one. Where code of a library may be replaced by that of
        /// another it is slower: Debian's Python by a tenth.
        library: Option<PathBuf>,
    },
}

impl Code {
    /// The library with it.
    pub fn library(&self) -> Option<&Path> {
        match self {
            Code::Library(library) => Some(library),
            Code::Executable { library } => library.as_deref(),
        }
    }
}

/// An interpreter that the plugin can drive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// What `argv[0]` shall be, for example `VENV/bin/python`: an absolute path from which Python
    /// finds its modules, and whether it is in a virtual environment. Not the chosen executable
    /// itself where that is a script that starts Python.
    pub executable: PathBuf,
    /// What there is to run.
    pub code: Code,
    /// Major, minor, patch.
    pub version: (u8, u8, u8),
    /// `sys.prefix`: the virtual environment, if it is in one.
    pub prefix: PathBuf,
    /// `sys.base_prefix`: the installation.
    pub base_prefix: PathBuf,
}

/// Finds the interpreter that the operator chose, by running it once: with the library `guest` in it, for a process
/// that can become its executable.
///
/// It leaves neither a thread nor a process behind. Not for a server that is about to answer: it
/// waits, usually for some tens of milliseconds.
///
/// # Errors
/// When it is not there, cannot be run or asked, or is not one that the plugin can drive. The text
/// names what was tried and says what to do.
pub fn find(choice: &Choice<'_>, guest: Option<&Path>) -> Result<Interpreter, FindError> {
    find_within(choice, guest, PATIENCE)
}

fn find_within(
    choice: &Choice<'_>,
    guest: Option<&Path>,
    patience: Duration,
) -> Result<Interpreter, FindError> {
    let chosen = choice.executable()?;
    library::same_architecture(&chosen)?;
    let answer = match query::ask(&chosen, guest, patience) {
        // The loader refuses a program whose C library is too old for the guest.
        Err(FindError { trouble: Trouble::NotPython { .. }, .. }) if guest.is_some() => {
            query::ask(&chosen, None, patience)?
        }
        answer => answer?,
    };
    refuse(&chosen, &answer)?;
    let library = library::find(&chosen, &answer);
    let code = if answer.has_guest && answer.mapped.is_empty() {
        Code::Executable { library: library.ok() }
    } else {
        Code::Library(library?)
    };
    let query::Answer { version, prefix, base_prefix, executable, .. } = answer;
    let executable = if executable.is_absolute() { executable } else { chosen };
    Ok(Interpreter { executable, code, version, prefix, base_prefix })
}

/// Refuses a Python that the plugin cannot drive.
fn refuse(executable: &Path, answer: &query::Answer) -> Result<(), FindError> {
    let (major, minor, patch) = answer.version;
    let version = format!("{major}.{minor}.{patch}");
    let trouble = if answer.implementation != "cpython" {
        Trouble::OtherImplementation(answer.implementation.clone())
    } else if (major, minor) < OLDEST {
        Trouble::TooOld(version)
    } else if answer.is_free_threaded {
        Trouble::FreeThreaded(version)
    } else {
        return Ok(());
    };
    Err(trouble.of(executable))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::time::Instant;

    use tempfile::TempDir;

    use super::*;

    /// A directory with an executable `python` that is this shell script.
    ///
    /// A shell writes it: were it open for writing here at the moment another test forks, it could
    /// not be executed.
    fn fake(script: &str) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod +x "$2""#;
        let path = directory.path().join("python");
        let status = Command::new("/bin/sh").args(["-c", write, "sh", script]).arg(path).status();
        assert!(status.expect("a shell").success());
        directory
    }

    /// A script that answers as a Python in `directory` with these facts would.
    fn answering(facts: &str) -> String {
        format!("printf '\\n%s\\nend\\n' '{facts}'")
    }

    fn look_for(fake: &TempDir, patience: Duration) -> Result<Interpreter, FindError> {
        find_within(&Choice::Executable(&fake.path().join("python")), None, patience)
    }

    fn refusal(script: &str) -> String {
        let fake = fake(script);
        let error = look_for(&fake, Duration::from_secs(30)).expect_err(script).to_string();
        let subject = format!("{}: ", fake.path().join("python").display());
        error.strip_prefix(&subject).unwrap_or_else(|| panic!("{error}")).to_owned()
    }

    #[test]
    fn a_script_that_starts_python_is_followed_to_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let lib = directory.path().join("lib");
        fs::create_dir(&lib).expect("a directory");
        fs::write(lib.join("libpython3.12.so.1.0"), "").expect("a file");
        let base = directory.path().display();
        let facts = format!(
            "implementation=cpython\nversion=3.12.1\nexecutable={base}/bin/python3\nprefix={base}/v\n\
             base_prefix={base}\nsoname=libpython3.12.so.1.0\nlibdir=/install/lib"
        );
        let shim = fake(&answering(&facts));
        let expected = Interpreter {
            executable: directory.path().join("bin/python3"),
            code: Code::Library(lib.join("libpython3.12.so.1.0")),
            version: (3, 12, 1),
            prefix: directory.path().join("v"),
            base_prefix: directory.path().to_owned(),
        };
        assert_eq!(look_for(&shim, Duration::from_secs(30)).expect("usable"), expected);
    }

    #[test]
    fn what_the_plugin_cannot_drive_is_refused() {
        let cases = [
            ("implementation=pypy\nversion=3.10.14", "is pypy, another implementation"),
            (
                "implementation=cpython\nversion=3.8.20",
                "is Python 3.8.20; the oldest that can be used is 3.9",
            ),
            (
                "implementation=cpython\nversion=3.13.1\ngil_disabled=1",
                "is a free-threaded build of Python 3.13.1",
            ),
            (
                "implementation=cpython\nversion=3.11.7\nbase_prefix=/no/such\ngil_disabled=0\nshared=0",
                "Python 3.11.7 is there, its shared library is not; looked for /no/such/lib/libpython3.11.so.1.0, ",
            ),
        ];
        for (facts, expected) in cases {
            let text = refusal(&answering(facts));
            assert!(text.starts_with(expected), "{text}");
        }
        let ancient = "echo 'Unknown option: -I' >&2; echo 'usage: python [option]' >&2; exit 2";
        assert!(refusal(ancient).starts_with("is Python 2; "), "{}", refusal(ancient));
    }

    #[test]
    fn what_is_no_python_is_quoted() {
        let cases = [
            ("echo 'wrong option' >&2; exit 3", "it ended with exit status: 3 and said: wrong option;"),
            ("exit 0", "it ended with exit status: 0;"),
            ("kill -9 $$", "it ended with signal: 9"),
            ("exec >&- 2>&-; sleep 0.1; exit 7", "it ended with exit status: 7;"),
            ("echo hello; echo end", "it ended with exit status: 0;"),
            ("printf '\\nimplementation=x\\nnonsense\\nend\\n'", "it answered something else;"),
            ("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done", "it answered something else;"),
        ];
        for (script, expected) in cases {
            let text = refusal(script);
            assert!(text.starts_with("is not Python, or a broken one: asked for its version, "), "{text}");
            assert!(text.contains(expected), "{script}: {text}");
            assert!(text.contains("try it by hand: "), "{text}");
        }
    }

    #[test]
    fn one_that_hangs_is_given_up_and_killed_with_what_it_started() {
        // The sleep is a child of the shell, and holds a FIFO open for as long as it lives.
        let python = fake("exec 3>\"${0%/*}/alive\"; echo 'cannot decide' >&2; sleep 1000; true");
        let alive = python.path().join("alive");
        crate::sys::fs::make_fifo(&alive, 0o600).expect("a FIFO");
        let reader = std::thread::spawn(move || fs::read(alive).expect("readable"));
        let start = Instant::now();
        // Long enough for a shell to start on a busy machine.
        let error = look_for(&python, Duration::from_secs(3)).expect_err("it hangs").to_string();
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        let expected = "did not say within 3 s which Python it is and said: cannot decide; try it by hand: ";
        assert!(error.contains(expected), "{error}");
        assert!(reader.join().expect("it ends when nobody holds the FIFO open").is_empty());
    }

    #[test]
    fn a_file_that_cannot_be_run_is_told_with_the_reason() {
        let directory = fake("exit 0");
        let path = directory.path().join("python");
        let write = r#"printf '#!/no/such/interpreter\n' > "$1""#;
        assert!(
            Command::new("/bin/sh").args(["-c", write, "sh"]).arg(&path).status().expect("a shell").success()
        );
        let error = find(&Choice::Executable(&path), None).expect_err("no interpreter").to_string();
        assert!(error.contains("the program behind #! in its first line"), "{error}");
        assert!(Command::new("/bin/chmod").arg("a-x").arg(&path).status().expect("chmod").success());
        let error = find(&Choice::Executable(&path), None).expect_err("no right").to_string();
        assert!(
            error.contains("Permission denied") && error.contains("needs the right to run it"),
            "{error}"
        );
    }

    #[test]
    fn a_program_for_another_processor_is_not_run() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("python");
        let mut program = fs::read("/proc/self/exe").expect("readable")[..64].to_vec();
        // s390: nobody develops on one.
        program[18..20].copy_from_slice(&[22, 0]);
        fs::write(&path, program).expect("a file");
        let error = find(&Choice::Executable(&path), None).expect_err("another processor").to_string();
        assert!(error.contains("is made for s390") && error.contains("the server for "), "{error}");
    }

    /// Interpreters that there are: of the distribution, and those that a developer names in
    /// `APPSERVER_TEST_PYTHONS`, separated by colons.
    fn real_ones() -> Vec<PathBuf> {
        let named = std::env::var_os("APPSERVER_TEST_PYTHONS").unwrap_or_default();
        let debian = PathBuf::from("/usr/bin/python3");
        std::env::split_paths(&named).chain([debian]).filter(|path| path.is_file()).collect()
    }

    /// What an interpreter says about itself, by a road of its own.
    fn say(executable: &Path, expression: &str) -> String {
        let print = format!("import sys; print({expression})");
        let output = Command::new(executable).args(["-E", "-c", &print]).output().expect("it runs");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    #[test]
    fn real_interpreters_are_found_with_their_library() {
        for python in real_ones() {
            let version = say(&python, "'%d.%d.%d' % sys.version_info[:3]");
            let old = version.starts_with("2.")
                || ["3.6.", "3.7.", "3.8."].iter().any(|it| version.starts_with(it));
            match find(&Choice::Executable(&python), None) {
                Ok(found) => {
                    let (major, minor, patch) = found.version;
                    assert_eq!(format!("{major}.{minor}.{patch}"), version);
                    assert_eq!(found.prefix.display().to_string(), say(&python, "sys.prefix"));
                    assert_eq!(found.base_prefix.display().to_string(), say(&python, "sys.base_prefix"));
                    assert_eq!(found.executable.display().to_string(), say(&python, "sys.executable"));
                    let name = found
                        .code
                        .library()
                        .and_then(Path::file_name)
                        .expect("a name")
                        .to_string_lossy()
                        .into_owned();
                    assert!(name.starts_with(&format!("libpython{major}.{minor}.so")), "{name}");
                    assert!(!old, "{version} is too old");
                }
                Err(FindError { trouble: Trouble::TooOld(_), .. }) => {
                    assert!(old, "{version} is not too old")
                }
                // Debian packages it apart.
                Err(FindError { trouble: Trouble::NoLibrary { .. }, .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn the_python_in_path_is_found_where_there_is_one() {
        match find(&Choice::Path, None) {
            Ok(found) => {
                let library = found.code.library().expect("asked for");
                assert!(library.is_file() && found.executable.is_absolute(), "{found:?}");
            }
            Err(FindError { trouble: Trouble::NotInPath { .. } | Trouble::NoLibrary { .. }, .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_virtual_environment_is_its_prefix_and_its_python_the_executable() {
        for python in real_ones() {
            let directory = tempfile::tempdir().expect("a directory");
            let venv = directory.path().join("venv");
            let make = Command::new(&python).args(["-m", "venv", "--without-pip"]).arg(&venv).output();
            if !make.expect("it runs").status.success() {
                // Debian packages this apart too.
                continue;
            }
            let found = match find(&Choice::VirtualEnv(&venv), None) {
                Ok(found) => found,
                Err(FindError { trouble: Trouble::NoLibrary { .. } | Trouble::TooOld(_), .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            assert_eq!((found.prefix, found.executable), (venv.clone(), venv.join("bin/python")));
            assert_eq!(found.base_prefix.display().to_string(), say(&python, "sys.base_prefix"));
        }
    }
}
