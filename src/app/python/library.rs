//! Where the shared library of an interpreter is.

use std::path::{Path, PathBuf};
use std::{env, io};

use super::elf::Architecture;
use super::error::{FindError, Trouble};
use super::query::Answer;

/// Where the dynamic loader looks, apart from Debian's directories per architecture.
const LOADER_DIRECTORIES: [&str; 5] = ["/usr/local/lib", "/lib", "/usr/lib", "/lib64", "/usr/lib64"];

/// The shared library of the Python that gave this answer.
///
/// # Errors
/// When there is none, with every file that was looked for; or when it is for another processor.
pub(super) fn find(executable: &Path, answer: &Answer) -> Result<PathBuf, FindError> {
    let candidates = candidates(answer, env::var_os("LD_LIBRARY_PATH").as_deref());
    let Some(library) = candidates.iter().find(|file| file.is_file()) else {
        return Err(missing(answer, &candidates).of(executable));
    };
    same_architecture(library)?;
    Ok(library.clone())
}

/// Refuses a program or library that is made for another processor. What cannot be read is left to
/// those who run or load it.
pub(super) fn same_architecture(file: &Path) -> Result<(), FindError> {
    let both = || -> io::Result<_> { Ok(Architecture::of(file)?.zip(Architecture::ours()?)) };
    match both() {
        Ok(Some((theirs, ours))) if theirs != ours => {
            let trouble = Trouble::OtherArchitecture { theirs: theirs.to_string(), ours: ours.to_string() };
            Err(trouble.of(file))
        }
        _ => Ok(()),
    }
}

/// Every file it could be, the surest first.
fn candidates(answer: &Answer, loader_path: Option<&std::ffi::OsStr>) -> Vec<PathBuf> {
    let names = names(answer);
    // `libpython3.so`, which may be mapped too, holds nothing.
    let is_it = |path: &&PathBuf| path.file_name().is_some_and(|name| names.iter().any(|it| **it == *name));
    let mut candidates: Vec<PathBuf> = answer.mapped.iter().filter(is_it).cloned().collect();
    for directory in directories(answer, loader_path) {
        for name in &names {
            let candidate = directory.join(name);
            if !candidates.contains(&candidate) {
                candidates.push(candidate);
            }
        }
    }
    candidates
}

/// What the library is called: as Python says, else as it is usually called. A static build names
/// an archive, and may have a shared library all the same.
fn names(answer: &Answer) -> Vec<PathBuf> {
    let (major, minor, _) = answer.version;
    let usual = [format!("libpython{major}.{minor}.so.1.0"), format!("libpython{major}.{minor}.so")];
    let mut names = Vec::new();
    for name in [&answer.soname, &answer.linked].into_iter().cloned().chain(usual.map(PathBuf::from)) {
        if name.to_string_lossy().contains(".so") && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Where it may be: where Python is now, and where it says it was installed. A relocated installation
/// tells the directory of the machine it was built on, where another one may be here.
fn directories(answer: &Answer, loader_path: Option<&std::ffi::OsStr>) -> Vec<PathBuf> {
    let Answer { libdir, base_prefix, multiarch, .. } = answer;
    let mut directories = vec![
        base_prefix.join("lib"),
        base_prefix.join("lib").join(multiarch),
        base_prefix.join("lib64"),
        libdir.clone(),
        libdir.join(multiarch),
    ];
    // The distribution's Python may be static while its library comes with another package. To no
    // other Python does the library of the system belong, not even with the same version.
    if base_prefix == Path::new("/usr") {
        directories.extend(loader_path.iter().flat_map(env::split_paths));
        directories.extend(LOADER_DIRECTORIES.iter().map(|directory| Path::new(directory).join(multiarch)));
        directories.extend(LOADER_DIRECTORIES.iter().map(PathBuf::from));
    }
    // Joined with nothing a directory ends with a slash.
    let mut known = Vec::new();
    for directory in directories {
        let directory: PathBuf = directory.components().collect();
        if directory.is_absolute() && !known.contains(&directory) {
            known.push(directory);
        }
    }
    known
}

fn missing(answer: &Answer, candidates: &[PathBuf]) -> Trouble {
    let (major, minor, patch) = answer.version;
    let advice = if answer.base_prefix == Path::new("/usr") {
        format!(
            "Install its package: apt install libpython{major}.{minor} (Debian, Ubuntu), python3-libs (Fedora)"
        )
    } else if answer.is_shared {
        format!(
            "Reinstall this Python: it was built with a library that is not in {}",
            answer.libdir.display()
        )
    } else {
        format!(
            "Build this Python with it: ./configure --enable-shared, \
             with pyenv PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {major}.{minor}.{patch}"
        )
    };
    let tried: Vec<String> = candidates.iter().map(|file| file.display().to_string()).collect();
    Trouble::NoLibrary { version: format!("{major}.{minor}.{patch}"), tried: tried.join(", "), advice }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn debian() -> Answer {
        Answer {
            version: (3, 11, 2),
            base_prefix: "/usr".into(),
            is_shared: true,
            libdir: "/usr/lib/x86_64-linux-gnu".into(),
            soname: "libpython3.11.so.1.0".into(),
            linked: "libpython3.11.so".into(),
            multiarch: "x86_64-linux-gnu".into(),
            ..Answer::default()
        }
    }

    /// Built on another machine, without a library by its own account.
    fn relocated() -> Answer {
        Answer {
            version: (3, 12, 1),
            base_prefix: "/opt/python".into(),
            libdir: "/install/lib".into(),
            soname: "libpython3.12.a".into(),
            linked: "libpython3.12.a".into(),
            ..Answer::default()
        }
    }

    fn text(answer: &Answer, loader_path: Option<&str>) -> Vec<String> {
        let files = candidates(answer, loader_path.map(OsStr::new));
        files.iter().map(|file| file.display().to_string()).collect()
    }

    #[test]
    fn what_is_mapped_goes_first_unless_it_is_the_stub() {
        let mapped = vec!["/opt/lib/libpython3.so".into(), "/opt/lib/libpython3.11.so.1.0".into()];
        let answer = Answer { mapped, ..debian() };
        let found = text(&answer, None);
        assert_eq!(found[0], "/opt/lib/libpython3.11.so.1.0");
        assert_eq!(found[1], "/usr/lib/libpython3.11.so.1.0");
        assert!(!found.iter().any(|file| file.ends_with("libpython3.so")));
    }

    #[test]
    fn the_loader_is_followed_for_the_distributions_python_only() {
        let found = text(&debian(), Some("/srv/lib:relative"));
        for file in
            ["/srv/lib/libpython3.11.so.1.0", "/lib64/libpython3.11.so.1.0", "/usr/lib64/libpython3.11.so"]
        {
            assert!(found.iter().any(|it| it == file), "{file}: {found:?}");
        }
        assert!(found.iter().all(|file| file.starts_with('/')), "{found:?}");
        let mut unique = found.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), found.len());

        let expected = ["/opt/python/lib", "/opt/python/lib64", "/install/lib"]
            .iter()
            .flat_map(|directory| {
                ["libpython3.12.so.1.0", "libpython3.12.so"].map(|name| format!("{directory}/{name}"))
            })
            .collect::<Vec<_>>();
        assert_eq!(text(&relocated(), Some("/srv/lib")), expected);
    }

    #[test]
    fn a_library_that_is_missing_is_told_with_the_way_to_get_it() {
        let advice = |answer: &Answer| match missing(answer, &candidates(answer, None)) {
            Trouble::NoLibrary { tried, advice, .. } => {
                assert!(tried.contains(", "), "{tried}");
                advice
            }
            other => panic!("{other}"),
        };
        assert!(advice(&debian()).contains("apt install libpython3.11 "));
        assert!(advice(&relocated()).contains("PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.12.1"));
        let incomplete = Answer { is_shared: true, ..relocated() };
        assert!(advice(&incomplete).contains("Reinstall this Python"));
    }
}
