//! Magic variables: `%n`, `%d`, `%h` and their kin, replaced in the text of a file before it is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What does not change from file to file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fixed {
    /// `%v`: the directory the server was started in.
    pub cwd: String,
    /// `%V`: version of the server.
    pub version: String,
    /// `%h`
    pub hostname: String,
    /// `%t`, and in microseconds `%T`: when the service was started.
    pub started: u64,
    /// `%k`: processors.
    pub cpus: usize,
    /// `%u`
    pub uid: u32,
    /// `%U`: name of the user, or else its number.
    pub user: String,
    /// `%g`
    pub gid: u32,
    /// `%G`: name of the group, or else its number.
    pub group: String,
    /// `%b`: path of the running binary.
    pub binary: String,
}

/// A configuration file as the file system knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    /// Absolute; symbolic links are resolved unless the file itself is one.
    pub path: PathBuf,
    /// Inode number.
    pub inode: u64,
}

/// The table of all variables.
#[derive(Debug, Clone)]
pub struct Magic {
    table: BTreeMap<char, String>,
    /// False until a file has given the uppercase letters their values.
    first_seen: bool,
}

/// Letters of a file; the first file loaded keeps its values under the uppercase ones.
const PER_FILE: &str = "odspcenxij0123456789";
/// Those of them that have an uppercase form.
const WITH_UPPERCASE: &str = "odspcenxij";

impl Magic {
    /// The table before any file.
    pub fn new(fixed: &Fixed) -> Self {
        let table = [
            ('v', fixed.cwd.clone()),
            ('V', fixed.version.clone()),
            ('h', fixed.hostname.clone()),
            ('t', fixed.started.to_string()),
            ('T', fixed.started.saturating_mul(1_000_000).to_string()),
            ('k', fixed.cpus.to_string()),
            ('u', fixed.uid.to_string()),
            ('U', fixed.user.clone()),
            ('g', fixed.gid.to_string()),
            ('G', fixed.group.clone()),
            ('b', fixed.binary.clone()),
            ('[', "\x1b".to_owned()),
            ('%', "%".to_owned()),
            ('(', "%(".to_owned()),
        ];
        Magic { table: table.into(), first_seen: false }
    }

    /// Takes up the variables of a file. `name` is how the option named it, `facts` is `None` for
    /// what is no file; `template` files (`include`, `inherit`, positional ones) leave the uppercase
    /// letters alone.
    pub fn enter(&mut self, name: &str, section: &str, facts: Option<&FileFacts>, template: bool) {
        for letter in PER_FILE.chars() {
            self.table.remove(&letter);
        }
        self.table.insert('o', name.to_owned());
        self.table.insert('x', section.to_owned());
        if let Some(facts) = facts {
            self.describe(facts);
        }
        if !template && !self.first_seen && facts.is_some() {
            self.first_seen = true;
            for letter in WITH_UPPERCASE.chars() {
                let value = self.table.get(&letter).cloned().unwrap_or_default();
                self.table.insert(letter.to_ascii_uppercase(), value);
            }
        }
    }

    /// Another section of the file that was read last.
    pub fn enter_section(&mut self, section: &str) {
        self.table.insert('x', section.to_owned());
    }

    fn describe(&mut self, facts: &FileFacts) {
        let text =
            |path: Option<&Path>| path.map_or(String::new(), |path| path.to_string_lossy().into_owned());
        let whole = text(Some(&facts.path));
        let base = facts.path.file_name().map_or(String::new(), |name| name.to_string_lossy().into_owned());
        let (stem, extension) = base.rsplit_once('.').unwrap_or((&base, ""));
        let directory = text(facts.path.parent());
        let parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
        for (digit, part) in ('0'..='9').zip(&parts) {
            self.table.insert(digit, (*part).to_owned());
        }
        self.table.insert('c', parts.last().copied().unwrap_or_default().to_owned());
        self.table.insert('d', format!("{}/", directory.trim_end_matches('/')));
        self.table.insert('n', stem.to_owned());
        self.table.insert('e', extension.to_owned());
        self.table.insert('i', facts.inode.to_string());
        self.table.insert('j', hash(&whole));
        self.table.insert('s', base.clone());
        self.table.insert('p', whole);
    }

    /// Replaces the variables in the text of a file. A letter that stands for nothing disappears
    /// together with its `%`; `%(` stays for placeholders, and so does a `%` at the very end.
    pub fn substitute(&self, text: &str) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('%') {
            result.push_str(before);
            let mut chars = behind.chars();
            match chars.next() {
                // A line break is never part of a variable, whatever uWSGI does.
                None | Some('\n') => {
                    result.push('%');
                    rest = behind;
                    continue;
                }
                Some(letter) => result.push_str(self.table.get(&letter).map_or("", String::as_str)),
            }
            rest = chars.as_str();
        }
        result.push_str(rest);
        result
    }
}

/// uWSGI's `%j`: Bernstein's hash with exclusive or, its bytes as they lie in memory.
fn hash(text: &str) -> String {
    let hash = text.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    hash.to_le_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed() -> Fixed {
        Fixed {
            cwd: "/srv".to_owned(),
            version: "1".to_owned(),
            hostname: "web1".to_owned(),
            started: 5,
            cpus: 2,
            uid: 33,
            user: "www-data".to_owned(),
            gid: 34,
            group: "www".to_owned(),
            binary: "/bin/a".to_owned(),
        }
    }

    fn facts(path: &str) -> FileFacts {
        FileFacts { path: PathBuf::from(path), inode: 9 }
    }

    #[test]
    fn the_table_holds_what_the_server_knows() {
        let magic = Magic::new(&fixed());
        let text = "%v|%V|%h|%t|%T|%k|%u|%U|%g|%G|%b|%%|%[|%(x)|[%y]|%é|100%";
        let expected = "/srv|1|web1|5|5000000|2|33|www-data|34|www|/bin/a|%|\x1b|%(x)|[]||100%";
        assert_eq!(magic.substitute(text), expected);
        assert_eq!(magic.substitute("%n|%p|%\n"), "||%\n");
    }

    #[test]
    fn a_file_brings_its_own() {
        let mut magic = Magic::new(&fixed());
        magic.enter("b/p.ini", "sec", Some(&facts("/tmp/confx/a/b/p.ini")), false);
        let text = "%p|%s|%d|%n|%o|%0|%1|%2|%3|%4|%c|%e|%j|%i|%x";
        let expected =
            "/tmp/confx/a/b/p.ini|p.ini|/tmp/confx/a/b/|p|b/p.ini|tmp|confx|a|b||b|ini|6C338A13|9|sec";
        assert_eq!(magic.substitute(text), expected);
        magic.enter("/x", "", Some(&facts("/x")), false);
        assert_eq!(magic.substitute("%p|%d|%n|%e|%c|%0|%s"), "/x|/|x||||x");
    }

    #[test]
    fn the_first_file_that_is_no_template_keeps_the_uppercase_letters() {
        let mut magic = Magic::new(&fixed());
        magic.enter("t.ini", "", Some(&facts("/etc/t.ini")), true);
        assert_eq!(magic.substitute("%n%N"), "t");
        magic.enter("a.ini", "", Some(&facts("/srv/a.ini")), false);
        magic.enter("b.ini", "", Some(&facts("/srv/b.ini")), false);
        assert_eq!(magic.substitute("%n %N %O %D %S %P"), "b a a.ini /srv/ a.ini /srv/a.ini");
        magic.enter("-", "", None, false);
        assert_eq!(magic.substitute("%n|%p|%o|%N"), "||-|a");
    }
}
