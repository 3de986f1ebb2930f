//! What `ps` shows.

use crate::config::schema::Group::ProcessTitles;
use crate::config::schema::{Kind, OptionSpec, Status, row};

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        ProcessTitles,
        "procname",
        Kind::Str(|c, title| c.titles.workers = Some(title.to_owned())),
        "Title of all processes but the master.",
    ),
    row(
        ProcessTitles,
        "procname-master",
        Kind::Str(|c, title| c.titles.master = Some(title.to_owned())),
        "Title of the master.",
    ),
    row(
        ProcessTitles,
        "procname-prefix",
        Kind::Str(|c, prefix| prefix.clone_into(&mut c.titles.prefix)),
        "Text in front of every title.",
    ),
    row(
        ProcessTitles,
        "procname-prefix-spaced",
        Kind::Str(|c, prefix| c.titles.prefix = format!("{prefix} ")),
        "The same, with a space behind it.",
    ),
    row(
        ProcessTitles,
        "procname-append",
        Kind::Str(|c, suffix| suffix.clone_into(&mut c.titles.append)),
        "Text behind every title.",
    ),
    row(ProcessTitles, "auto-procname", Kind::Flag(|_, _| ()), "Give every process a title.")
        .status(Status::AcceptedNoEffect("processes always have titles")),
];
