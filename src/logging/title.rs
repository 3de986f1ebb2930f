//! ● What the processes are called in `ps`.

use crate::config::{Config, ProcessTitles};

/// Title of the master.
pub fn master(config: &Config, generation: u64) -> String {
    let text = match &config.titles.master {
        Some(name) => name.clone(),
        None => format!("appserver master ({})", release(config, generation)),
    };
    dressed(&config.titles, &text)
}

/// Title of a zygote.
pub fn zygote(config: &Config, generation: u64) -> String {
    child(config, &format!("appserver zygote ({})", release(config, generation)))
}

/// Title of a worker.
pub fn worker(config: &Config, slot: u32, generation: u64) -> String {
    child(config, &format!("appserver worker {slot} ({})", release(config, generation)))
}

fn child(config: &Config, text: &str) -> String {
    dressed(&config.titles, config.titles.workers.as_deref().unwrap_or(text))
}

fn dressed(titles: &ProcessTitles, text: &str) -> String {
    format!("{}{text}{}", titles.prefix, titles.append)
}

fn release(config: &Config, generation: u64) -> String {
    match &config.release {
        Some(label) => format!("generation {generation}, release {label}"),
        None => format!("generation {generation}, {}", env!("CARGO_PKG_VERSION")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_tell_role_number_generation_and_release() {
        let mut config = Config::defaults();
        config.release = Some("v7".to_owned());
        assert_eq!(worker(&config, 2, 3), "appserver worker 2 (generation 3, release v7)");
        assert_eq!(master(&config, 3), "appserver master (generation 3, release v7)");
    }

    #[test]
    fn procname_options_replace_and_dress() {
        let mut config = Config::defaults();
        config.titles.prefix = "shop ".to_owned();
        config.titles.append = " (live)".to_owned();
        config.titles.workers = Some("web".to_owned());
        assert_eq!(worker(&config, 2, 3), "shop web (live)");
        assert!(master(&config, 1).starts_with("shop appserver master (generation 1"));
    }
}
