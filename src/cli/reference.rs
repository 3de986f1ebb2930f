//! What the option table says, in forms for `man` and for shells.

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;

use super::parser::{Audience, parser};

/// The shells there are completions for.
pub(super) fn shells() -> PossibleValuesParser {
    PossibleValuesParser::new(Shell::value_variants().iter().filter_map(Shell::to_possible_value))
}

/// The man page, in roff.
pub(super) fn man_page() -> String {
    let mut page = Vec::new();
    clap_mangen::Man::new(parser(Audience::Reference).name("appserver"))
        .title("APPSERVER")
        .section("8")
        .render(&mut page)
        .expect("writing to memory does not fail");
    String::from_utf8(page).expect("the table is text")
}

/// Completions for one of [`shells`].
pub(super) fn completions(shell: &str) -> String {
    let shell = Shell::from_str(shell, true).expect("the parser lets known shells through only");
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut parser(Audience::Reference), "appserver", &mut script);
    String::from_utf8(script).expect("the table is text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::options::OPTIONS;

    #[test]
    fn the_man_page_names_every_option() {
        // roff writes a dash as `\\-`.
        let page = man_page().replace("\\-", "-");
        for row in OPTIONS {
            assert!(page.contains(&format!("--{}", row.name)), "{}", row.name);
        }
        assert!(page.starts_with(".ie") || page.contains(".TH APPSERVER 8"), "{}", &page[..80]);
    }

    #[test]
    fn completions_name_every_option_for_every_shell() {
        for shell in Shell::value_variants() {
            let name = shell.to_string();
            let script = completions(&name);
            for row in OPTIONS {
                assert!(script.contains(row.name), "{name}: {}", row.name);
            }
        }
    }
}
