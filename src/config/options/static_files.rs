//! Serving files.

use crate::config::schema::Group::StaticFiles;
use crate::config::schema::{Kind, OptionSpec, Shape, accepted, not_yet, row};
use crate::config::value::{self, ValueError};
use crate::config::{Config, StaticMap};

const EXPIRES: &str = "files are served with validators, without Expires";
const GZIP: &str = "files are sent as they are";

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        StaticFiles,
        "static-map",
        Kind::Parsed(add_static_map),
        "Serve the files of a directory under a URL prefix.",
    )
    .metavar("/PREFIX=DIR")
    .repeatable(),
    row(
        StaticFiles,
        "static-dir",
        Kind::Path(|c, target| c.static_maps.push(StaticMap { prefix: "/".to_owned(), target })),
        "Serve the files of a directory under /, as static-map=/=DIR.",
    )
    .aliases(&["check-static"])
    .metavar("DIR")
    .repeatable(),
    row(
        StaticFiles,
        "static-index",
        Kind::Name(|c, name| c.static_index.push(name.to_owned())),
        "File to look for when a directory is asked for; the first one given replaces the default.",
    )
    .metavar("NAME")
    .default("index.html")
    .repeatable(),
    row(
        StaticFiles,
        "static-safe",
        Kind::Path(|c, dir| c.static_safe.push(dir)),
        "Directory that symbolic links may lead to.",
    )
    .metavar("DIR")
    .repeatable(),
    row(
        StaticFiles,
        "static-follow-symlinks",
        Kind::Flag(|c, on| c.static_follow_symlinks = on),
        "Follow symbolic links out of the served directories.",
    ),
    not_yet(
        StaticFiles,
        "static-map2",
        Shape::Pair,
        "Serve a directory under a URL prefix that is part of the path on disk.",
        "use static-map with the whole path",
    )
    .metavar("/PREFIX=DIR")
    .repeatable(),
    not_yet(
        StaticFiles,
        "check-static-docroot",
        Shape::Flag,
        "Serve the files of DOCUMENT_ROOT.",
        "use static-dir",
    ),
    not_yet(
        StaticFiles,
        "static-expires",
        Shape::Name,
        "Expires header for files whose path matches.",
        EXPIRES,
    )
    .and(&["static-expires-mtime"])
    .metavar("REGEX SECONDS")
    .repeatable(),
    not_yet(StaticFiles, "static-expires-uri", Shape::Name, "The same for the URI.", EXPIRES)
        .and(&["static-expires-uri-mtime"])
        .metavar("REGEX SECONDS")
        .repeatable(),
    not_yet(StaticFiles, "static-expires-type", Shape::Pair, "The same for the media type.", EXPIRES)
        .and(&["static-expires-type-mtime"])
        .metavar("TYPE=SECONDS")
        .repeatable(),
    not_yet(StaticFiles, "static-expires-path-info", Shape::Name, "The same for the decoded path.", EXPIRES)
        .and(&["static-expires-path-info-mtime"])
        .metavar("REGEX SECONDS")
        .repeatable(),
    not_yet(StaticFiles, "static-gzip-all", Shape::Flag, "Serve the .gz file beside a file.", GZIP),
    not_yet(StaticFiles, "static-gzip", Shape::Name, "The same for files whose path matches.", GZIP)
        .repeatable(),
    not_yet(StaticFiles, "static-gzip-dir", Shape::Path, "The same for files in a directory.", GZIP)
        .aliases(&["static-gzip-prefix"])
        .repeatable(),
    not_yet(StaticFiles, "static-gzip-ext", Shape::Name, "The same for files with an extension.", GZIP)
        .aliases(&["static-gzip-suffix"])
        .repeatable(),
    not_yet(
        StaticFiles,
        "static-skip-ext",
        Shape::Name,
        "Extension of files that are not served.",
        "files with it are served; keep them out of the served directories",
    )
    .repeatable(),
    accepted(
        StaticFiles,
        "static-cache-paths",
        Shape::Seconds,
        "How long to remember where files are.",
        "files are found without a cache",
    )
    .default("0"),
    accepted(
        StaticFiles,
        "static-cache-paths-name",
        Shape::Name,
        "The cache for that.",
        "files are found without a cache",
    ),
    row(
        StaticFiles,
        "mimefile",
        Kind::Path(|c, path| c.mime_files.push(path)),
        "File of media types in the form of /etc/mime.types; they go before those built in.",
    )
    .aliases(&["mime-file"])
    .repeatable(),
    not_yet(
        StaticFiles,
        "file-serve-mode",
        Shape::Name,
        "Let the web server send files.",
        "files are sent by the workers",
    )
    .aliases(&["fileserve-mode"]),
    accepted(
        StaticFiles,
        "honour-range",
        Shape::Flag,
        "Answer requests for a part of a file.",
        "that is always done",
    )
    .aliases(&["honor-range"]),
    accepted(
        StaticFiles,
        "disable-sendfile",
        Shape::Flag,
        "Do not use sendfile(2).",
        "sendfile(2) is not used",
    ),
];

fn add_static_map(config: &mut Config, text: &str) -> Result<(), ValueError> {
    config.static_maps.push(value::static_map(text)?);
    Ok(())
}
