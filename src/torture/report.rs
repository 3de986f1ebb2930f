//! What came of it all, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::account::{Excuse, Incident, Kind, Tally, Verdict, What};

/// Losses that are told one by one.
const EXAMPLES: usize = 10;

/// All blows of one sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Struck {
    /// Its name.
    pub name: &'static str,
    /// How often.
    pub times: u64,
    /// How long the longest took.
    pub longest: Duration,
}

/// A whole run.
#[derive(Debug, Default)]
pub struct Report {
    /// `--seed`
    pub seed: u64,
    /// How long the load lasted.
    pub elapsed: Duration,
    /// The books by kind of client.
    pub books: Vec<(Kind, Tally)>,
    /// What was done to the server.
    pub blows: Vec<Struck>,
    /// What it may have cost.
    pub excuses: Vec<Excuse>,
    /// Kinds of load that the server does not serve.
    pub left_out: Vec<String>,
    /// Blows that did not end as they must, in order.
    pub failures: Vec<String>,
}

impl Report {
    /// Nothing was lost that had not to be, and every blow ended as it must.
    pub fn is_clean(&self) -> bool {
        self.failures.is_empty() && self.judged().iter().all(|(_, _, verdict)| verdict.lost.is_empty())
    }

    /// Counts a blow.
    pub fn struck(&mut self, name: &'static str, took: Duration) {
        match self.blows.iter_mut().find(|it| it.name == name) {
            Some(struck) => {
                struck.times += 1;
                struck.longest = struck.longest.max(took);
            }
            None => self.blows.push(Struck { name, times: 1, longest: took }),
        }
    }

    fn judged(&self) -> Vec<(Kind, &Tally, Verdict<'_>)> {
        self.books.iter().map(|(kind, tally)| (*kind, tally, tally.judge(&self.excuses))).collect()
    }

    /// For people.
    pub fn table(&self) -> String {
        let judged = self.judged();
        let mut rows = vec![
            [
                "load",
                "clients",
                "sent",
                "answered",
                "lost",
                "excused",
                "reconnects",
                "announced",
                "p50",
                "p99",
                "p99.9",
                "longest",
            ]
            .map(str::to_owned),
        ];
        rows.extend(judged.iter().map(|(kind, tally, verdict)| row(*kind, tally, verdict)));
        let mut text = aligned(&rows);
        let _ = writeln!(text);
        let mut rows = vec![["blow", "times", "longest"].map(str::to_owned)];
        rows.extend(
            self.blows.iter().map(|it| [it.name.to_owned(), it.times.to_string(), milliseconds(it.longest)]),
        );
        text.push_str(&aligned(&rows));
        if !(self.left_out.is_empty()
            && self.failures.is_empty()
            && judged.iter().all(|it| it.1.incidents.is_empty()))
        {
            text.push('\n');
        }
        for left_out in &self.left_out {
            let _ = writeln!(text, "left out: {left_out}");
        }
        let losses = |lost: bool| {
            let mut kinds = BTreeMap::<String, u64>::new();
            for (kind, _, verdict) in &judged {
                let excused = verdict.excused.iter().map(|(it, why)| (*it, format!(" ({why})")));
                let unexcused = verdict.lost.iter().map(|it| (*it, String::new()));
                let all: Vec<_> = if lost { unexcused.collect() } else { excused.collect() };
                for (incident, why) in all {
                    *kinds.entry(format!("{}: {}{why}", kind.name(), describe(incident))).or_default() += 1;
                }
            }
            kinds
        };
        for (title, lost) in [("lost", true), ("excused", false)] {
            for (what, count) in losses(lost) {
                let _ = writeln!(text, "{title}: {count} x {what}");
            }
        }
        for incident in self.examples(&judged) {
            let _ = writeln!(text, "  {}", example(incident));
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        let verdict = if self.is_clean() { "nothing was lost" } else { "NOT CLEAN" };
        let _ = writeln!(text, "\n{verdict}; {:.1} s, seed {}", self.elapsed.as_secs_f64(), self.seed);
        text
    }

    /// For programs; durations in milliseconds.
    pub fn json(&self) -> Value {
        let judged = self.judged();
        let loads: serde_json::Map<_, _> = judged
            .iter()
            .map(|(kind, tally, verdict)| (kind.name().to_owned(), load(tally, verdict)))
            .collect();
        let blows = self
            .blows
            .iter()
            .map(|it| (it.name.to_owned(), json!({ "times": it.times, "longest_ms": in_ms(it.longest) })));
        let examples: Vec<_> = self.examples(&judged).into_iter().map(example).collect();
        json!({
            "seed": self.seed,
            "clean": self.is_clean(),
            "seconds": self.elapsed.as_secs_f64(),
            "loads": loads,
            "blows": blows.collect::<serde_json::Map<_, _>>(),
            "left_out": self.left_out,
            "failures": self.failures,
            "examples": examples,
        })
    }

    fn examples<'a>(&self, judged: &[(Kind, &Tally, Verdict<'a>)]) -> Vec<&'a Incident> {
        judged.iter().flat_map(|(_, _, verdict)| verdict.lost.iter().copied()).take(EXAMPLES).collect()
    }
}

fn row(kind: Kind, tally: &Tally, verdict: &Verdict<'_>) -> [String; 12] {
    let wait = |wait| if tally.waits.count() == 0 { "-".to_owned() } else { milliseconds(wait) };
    [
        kind.name().to_owned(),
        tally.clients.to_string(),
        tally.sent.to_string(),
        tally.answered.to_string(),
        verdict.lost.len().to_string(),
        verdict.excused.len().to_string(),
        verdict.reconnects.to_string(),
        verdict.reconnects_announced.to_string(),
        wait(tally.waits.quantile(0.5)),
        wait(tally.waits.quantile(0.99)),
        wait(tally.waits.quantile(0.999)),
        wait(tally.longest.0),
    ]
}

fn load(tally: &Tally, verdict: &Verdict<'_>) -> Value {
    let mut lost = BTreeMap::<String, u64>::new();
    for incident in &verdict.lost {
        *lost.entry(describe(incident)).or_default() += 1;
    }
    json!({
        "clients": tally.clients,
        "sent": tally.sent,
        "answered": tally.answered,
        "given_back": tally.given_back,
        "lost": lost,
        "excused": verdict.excused.len(),
        "reconnects": verdict.reconnects,
        "reconnects_announced": verdict.reconnects_announced,
        "reconnects_excused": verdict.reconnects_excused,
        "p50_ms": in_ms(tally.waits.quantile(0.5)),
        "p99_ms": in_ms(tally.waits.quantile(0.99)),
        "p999_ms": in_ms(tally.waits.quantile(0.999)),
        "longest_ms": in_ms(tally.longest.0),
        "longest_at_s": tally.longest.1.as_secs_f64(),
    })
}

fn describe(incident: &Incident) -> String {
    match &incident.what {
        What::Lost(loss) => loss.to_string(),
        What::Closed { announced: true } => "closed as announced".to_owned(),
        What::Closed { announced: false } => "closed".to_owned(),
    }
}

fn example(incident: &Incident) -> String {
    let Incident { kind, at, opened, port, .. } = incident;
    let (name, what) = (kind.name(), describe(incident));
    let (at, opened) = (at.as_secs_f64(), opened.as_secs_f64());
    format!("{name}: {what} at {at:.3} s, on a connection from port {port}, opened at {opened:.3} s")
}

fn in_ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", in_ms(duration))
}

/// Columns of their widest cell; the first to the left, numbers to the right.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> =
        (0..N).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::account::Loss;
    use super::*;

    fn report(lost_at: u64) -> Report {
        let mut tally = Tally { clients: 2, sent: 3, ..Tally::default() };
        for at in 0..2 {
            tally.answer(Duration::from_secs(at), Duration::from_micros(1500 + at), false);
        }
        let (at, opened) = (Duration::from_secs(lost_at), Duration::ZERO);
        let what = What::Lost(Loss::Reset);
        tally.incidents.push(Incident { kind: Kind::Fresh, what, at, opened, port: 4000 });
        let (from, until) = (Duration::from_secs(5), Duration::from_secs(6));
        let excuses = vec![Excuse { why: "brutal", from, until, ports: None }];
        let mut report = Report { seed: 7, books: vec![(Kind::Fresh, tally)], excuses, ..Report::default() };
        report.struck("brutal", Duration::from_millis(3));
        report.struck("brutal", Duration::from_millis(2));
        report
    }

    #[test]
    fn a_loss_with_an_excuse_leaves_a_run_clean() {
        let report = report(5);
        assert!(report.is_clean());
        let table = report.table();
        assert!(table.contains("excused: 1 x fresh: reset (brutal)"), "{table}");
        assert!(table.contains("brutal      2   3.0 ms"), "{table}");
        assert!(table.ends_with("nothing was lost; 0.0 s, seed 7\n"), "{table}");
        let json = report.json();
        assert_eq!((&json["clean"], &json["loads"]["fresh"]["excused"]), (&json!(true), &json!(1)));
        assert_eq!(json["loads"]["fresh"]["longest_ms"], json!(1.501));
    }

    #[test]
    fn a_loss_without_one_and_a_failed_blow_do_not() {
        let mut report = report(20);
        assert!(!report.is_clean());
        let table = report.table();
        assert!(table.contains("lost: 1 x fresh: reset\n"), "{table}");
        assert!(table.contains("fresh: reset at 20.000 s, on a connection from port 4000"), "{table}");
        assert_eq!(report.json()["loads"]["fresh"]["lost"], json!({ "reset": 1 }));
        report.books.clear();
        report.failures.push("hup: refused".to_owned());
        assert!(!report.is_clean());
        assert!(report.table().contains("FAILED: hup: refused\n"));
    }
}
