//! ● How Python applications and what belongs to them are written: text to values.

use std::fmt;
use std::path::PathBuf;

use crate::config::value::ValueError;

/// A name in a module: of the application, or of the function that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Callable {
    /// The name, without brackets.
    pub name: String,
    /// Given with `()`: it is called without arguments and returns the application.
    pub is_factory: bool,
}

/// `package.module`, `package.module:callable`, `package.module:factory()`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSpec {
    /// What to import, with dots.
    pub module: String,
    /// What to take from it; `None` is what `callable` says.
    pub callable: Option<Callable>,
}

/// Where an application comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppSource {
    /// A module to import.
    Module(ModuleSpec),
    /// A file to execute.
    File(PathBuf),
    /// Code to execute.
    Code(String),
}

/// `/prefix=application` of `mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// URL path prefix, beginning with a slash and, but for the root, not ending with one.
    pub prefix: String,
    /// What is behind it: a module or a file.
    pub source: AppSource,
}

impl fmt::Display for Callable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = if self.is_factory { "()" } else { "" };
        write!(f, "{}{brackets}", self.name)
    }
}

impl fmt::Display for ModuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.callable {
            Some(callable) => write!(f, "{}:{callable}", self.module),
            None => f.write_str(&self.module),
        }
    }
}

/// Reads `package.module`, with `:callable` or `:factory()` behind it.
///
/// # Errors
/// For what cannot be imported: a path, an empty part.
pub(in crate::config) fn module(text: &str) -> Result<ModuleSpec, ValueError> {
    let (module, name) = text.split_once(':').map_or((text, None), |(module, name)| (module, Some(name)));
    if module.contains('/') || module.ends_with(".py") {
        return Err(ValueError::refused(
            "is a file; use wsgi-file for it and callable for the name in it, or write package.module:callable",
        ));
    }
    if module.split('.').any(str::is_empty) || module.contains(char::is_whitespace) {
        return Err(ValueError::refused(
            "is not the name of a module; write package.module or package.module:callable",
        ));
    }
    Ok(ModuleSpec { module: module.to_owned(), callable: name.map(callable).transpose()? })
}

/// Reads `name` or `name()`.
///
/// # Errors
/// For anything else: an expression, or a call with arguments.
pub(in crate::config) fn callable(text: &str) -> Result<Callable, ValueError> {
    let (name, is_factory) = text.strip_suffix("()").map_or((text, false), |name| (name, true));
    if name.contains('(') {
        return Err(ValueError::refused(
            "calls a factory with arguments; name() is called without any: write a module that passes them",
        ));
    }
    if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
        return Err(ValueError::refused(
            "does not end in the name of a callable; write application, or create_app() for a function that makes it",
        ));
    }
    Ok(Callable { name: name.to_owned(), is_factory })
}

/// Reads the path of a file to execute.
///
/// # Errors
/// For what uWSGI would fetch from elsewhere, and for a callable behind the name.
pub(in crate::config) fn file(text: &str) -> Result<PathBuf, ValueError> {
    if text.contains("://") {
        return Err(ValueError::refused("is not a file; the application is loaded from files only"));
    }
    if let Some((file, name)) = text.rsplit_once(".py:") {
        return Err(ValueError::refused(format!(
            "is not a file; the callable has an option of its own: wsgi-file = {file}.py and callable = {name}"
        )));
    }
    Ok(PathBuf::from(text))
}

/// Reads `/prefix=file.py`, `/prefix=file.wsgi` or `/prefix=module:callable`.
///
/// # Errors
/// When either side is missing, or it is not Python's.
pub(in crate::config) fn mount(text: &str) -> Result<Mount, ValueError> {
    let (prefix, app) = text
        .split_once('=')
        .ok_or_else(|| ValueError::refused("has no `=`; write /prefix=file.py or /prefix=module:callable"))?;
    if !prefix.starts_with('/') {
        return Err(ValueError::refused(
            "must begin with the URL prefix, and that with a slash: /prefix=file.py; \
             for hosts of their own start a server for each",
        ));
    }
    let source = if app.ends_with(".py") || app.ends_with(".wsgi") {
        AppSource::File(file(app)?)
    } else if app.contains(':') && !app.contains("://") {
        AppSource::Module(module(app)?)
    } else {
        return Err(ValueError::refused(
            "names no application; write /prefix=file.py, /prefix=file.wsgi or /prefix=module:callable",
        ));
    };
    let prefix = match prefix.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    Ok(Mount { prefix: prefix.to_owned(), source })
}

/// Reads the executable of an interpreter.
///
/// # Errors
/// For a script: uWSGI's option of this name runs one.
pub(in crate::config) fn executable(text: &str) -> Result<PathBuf, ValueError> {
    // With arguments, as uWSGI's option may have.
    if text.split(' ').next().is_some_and(|program| program.ends_with(".py")) {
        return Err(ValueError::refused(
            "is a script; give the path of the interpreter, for example /usr/bin/python3, and run the script with that",
        ));
    }
    Ok(PathBuf::from(text))
}

/// Reads `name=module`: a second name for a module.
///
/// # Errors
/// When either side is missing.
pub(in crate::config) fn alias(text: &str) -> Result<(String, String), ValueError> {
    match text.split_once('=') {
        Some((name, module)) if !name.is_empty() && !module.is_empty() => {
            Ok((name.to_owned(), module.to_owned()))
        }
        _ => Err(ValueError::refused("does not name two modules; write NAME=MODULE")),
    }
}

/// Reads how requests come to their environ. Both of uWSGI's words are fine: what an application
/// may rely on with `cheat` it may rely on without.
///
/// # Errors
/// For any other word.
pub(in crate::config) fn env_behavior(text: &str) -> Result<(), ValueError> {
    match text {
        "holy" | "cheat" => Ok(()),
        _ => Err(ValueError::refused("is not known; use holy")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_written_back_as_they_were_read() {
        for text in ["app", "project.wsgi", "a.b:application", "a.b:create_app()", "my-app.wsgi:ä_1"] {
            assert_eq!(module(text).map(|spec| spec.to_string()).as_deref(), Ok(text));
        }
        let spec = module("a.b:make()").expect("valid");
        assert_eq!(spec.module, "a.b");
        assert_eq!(spec.callable, Some(Callable { name: "make".to_owned(), is_factory: true }));
    }

    #[test]
    fn what_cannot_be_imported_is_told_what_it_is() {
        let cases = [
            ("app.py", "is a file"),
            ("app.py:app", "is a file"),
            ("/srv/app:app", "is a file"),
            ("", "not the name of a module"),
            (":app", "not the name of a module"),
            ("a..b", "not the name of a module"),
            (".a", "not the name of a module"),
            ("a b:app", "not the name of a module"),
            ("a:", "name of a callable"),
            ("a:()", "name of a callable"),
            ("a:b.c", "name of a callable"),
            ("a:b:c", "name of a callable"),
            ("a:make('x')", "with arguments"),
            ("a:make()()", "with arguments"),
        ];
        for (text, expected) in cases {
            let error = module(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn mounts_are_files_or_modules_under_a_prefix() {
        let file = |path: &str| AppSource::File(PathBuf::from(path));
        let cases = [
            ("/a=a.py", "/a", file("a.py")),
            ("/a/b/=/srv/b.wsgi", "/a/b", file("/srv/b.wsgi")),
            ("/=x:app", "/", AppSource::Module(module("x:app").expect("valid"))),
        ];
        for (text, prefix, source) in cases {
            assert_eq!(mount(text), Ok(Mount { prefix: prefix.to_owned(), source }), "{text}");
        }
        for wrong in
            ["/a", "a=a.py", "=a.py", "/a=", "/a=app", "/a=app.ini", "/a=http://x", "/a=b:", "/a=/b:c"]
        {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_script_is_no_interpreter_and_a_file_has_no_callable() {
        for fine in ["python3", "/usr/bin/python3.11", "/srv/app.py/bin/python", "../venv/bin/python"] {
            assert_eq!(executable(fine), Ok(PathBuf::from(fine)));
        }
        for wrong in ["manage.py", "/srv/app.py", "script.py argument"] {
            assert!(executable(wrong).is_err(), "{wrong}");
        }
        let error = file("/srv/app.py:app").expect_err("a callable").to_string();
        assert!(error.contains("wsgi-file = /srv/app.py and callable = app"), "{error}");
        assert!(file("http://example.org/app.py").is_err());
        assert!(file("/srv/app").is_ok());
    }
}
