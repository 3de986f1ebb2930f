//! What was sent, what was answered, what was lost, and whose fault that is. No socket, no clock.
//!
//! A *loss* is a request without a whole answer of the usual kind. Each one is held against the
//! [`Excuse`]s: a `kill -9` costs what the dead process had in its hands, a brutal reload cuts what is
//! under way. Everything else must not happen.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::histogram::Histogram;

/// How long after a brutal reload a client may find out: one that reads slowly empties its buffers first.
const NEWS_TRAVEL: Duration = Duration::from_secs(5);

/// What a client does all the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// GET after GET on one connection.
    KeepAlive,
    /// A connection for each GET.
    Fresh,
    /// Several GETs at once on one connection.
    Pipelined,
    /// POST with a body, on one connection.
    Post,
    /// POST with a body that takes its time.
    Upload,
    /// GET of a long answer, read slowly.
    Stream,
    /// A WebSocket that pings.
    Upgrade,
    /// GETs that wait in the listen queue while nobody accepts.
    Backlog,
}

impl Kind {
    /// Those that a client can be of.
    pub const CLIENTS: [Kind; 7] = [
        Kind::KeepAlive,
        Kind::Fresh,
        Kind::Pipelined,
        Kind::Post,
        Kind::Upload,
        Kind::Stream,
        Kind::Upgrade,
    ];

    /// As the command line and the table call it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::KeepAlive => "keep-alive",
            Kind::Fresh => "fresh",
            Kind::Pipelined => "pipelined",
            Kind::Post => "post",
            Kind::Upload => "upload",
            Kind::Stream => "stream",
            Kind::Upgrade => "upgrade",
            Kind::Backlog => "backlog",
        }
    }
}

/// How a request was lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// It was closed before the first byte of the answer.
    Closed,
    /// It was closed within the answer.
    Truncated,
    /// No answer within the patience of a client.
    TimedOut,
    /// An answer of another class than the first one had: an error, in general.
    Status(u16),
    /// No HTTP.
    Malformed,
    /// Another error.
    Io(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Refused => f.write_str("refused"),
            Loss::Reset => f.write_str("reset"),
            Loss::Closed => f.write_str("closed without an answer"),
            Loss::Truncated => f.write_str("cut within the answer"),
            Loss::TimedOut => f.write_str("no answer in time"),
            Loss::Status(status) => write!(f, "status {status}"),
            Loss::Malformed => f.write_str("not HTTP"),
            Loss::Io(text) => f.write_str(text),
        }
    }
}

/// What a client did not ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A request was lost.
    Lost(Loss),
    /// The server ended a connection that the client would have kept, and lost nothing by it.
    Closed {
        /// The last answer on it said so.
        announced: bool,
    },
}

/// Something happened to a connection. Times count from the beginning of the load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// Whose it was.
    pub kind: Kind,
    /// What happened.
    pub what: What,
    /// When.
    pub at: Duration,
    /// When the connection was asked for.
    pub opened: Duration,
    /// The client's port; 0 when there was no connection.
    pub port: u16,
}

/// Why something may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excuse {
    /// The blow.
    pub why: &'static str,
    /// When it began.
    pub from: Duration,
    /// When it was over.
    pub until: Duration,
    /// The client's ports of the connections that the process held; `None` when any may be concerned
    /// that was opened by then.
    pub ports: Option<BTreeSet<u16>>,
}

impl Excuse {
    /// Whether this is why.
    fn covers(&self, incident: &Incident) -> bool {
        // A port is another connection's later, but only after the first one has ended.
        let concerned = incident.opened <= self.until && incident.at >= self.from;
        concerned
            && match &self.ports {
                // The client may notice much later: it was reading slowly, or idle.
                Some(ports) => ports.contains(&incident.port),
                None => incident.at <= self.until + NEWS_TRAVEL,
            }
    }
}

/// The books of one kind of client.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Clients.
    pub clients: u64,
    /// Requests begun.
    pub sent: u64,
    /// Requests answered as they should be.
    pub answered: u64,
    /// Requests behind one whose answer announced a close, on a pipelined connection: the client knows that
    /// nobody has read them and sends them again.
    pub given_back: u64,
    /// How long answers took, those left out that fell into a pause of the server. Of a long one that is read
    /// slowly, the longest time without a byte.
    pub waits: Histogram,
    /// The longest of these, exactly, and when it began.
    pub longest: (Duration, Duration),
    /// What went wrong.
    pub incidents: Vec<Incident>,
}

impl Tally {
    /// An answer has arrived. `paused`: the server was told to accept nobody meanwhile.
    pub fn answer(&mut self, begun: Duration, took: Duration, paused: bool) {
        self.answered += 1;
        if paused {
            return;
        }
        self.waits.record(took);
        if took > self.longest.0 {
            self.longest = (took, begun);
        }
    }

    /// Adds the books of another client.
    pub fn merge(&mut self, other: Tally) {
        self.clients += other.clients;
        self.sent += other.sent;
        self.answered += other.answered;
        self.given_back += other.given_back;
        self.waits.merge(&other.waits);
        self.longest = self.longest.max(other.longest);
        self.incidents.extend(other.incidents);
    }

    /// What the incidents come to.
    pub fn judge<'a>(&'a self, excuses: &[Excuse]) -> Verdict<'a> {
        let mut verdict = Verdict::default();
        for incident in &self.incidents {
            let excuse = excuses.iter().find(|excuse| excuse.covers(incident));
            match (&incident.what, excuse) {
                (What::Lost(_), None) => verdict.lost.push(incident),
                (What::Lost(_), Some(excuse)) => verdict.excused.push((incident, excuse.why)),
                (What::Closed { .. }, Some(_)) => verdict.reconnects_excused += 1,
                (What::Closed { announced: true }, None) => verdict.reconnects_announced += 1,
                (What::Closed { announced: false }, None) => verdict.reconnects += 1,
            }
        }
        verdict
    }
}

/// Incidents, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// Losses that nothing excuses.
    pub lost: Vec<&'a Incident>,
    /// Losses with their excuse.
    pub excused: Vec<(&'a Incident, &'static str)>,
    /// Connections that the server ended between two requests without a word.
    pub reconnects: u64,
    /// Connections that it ended as its last answer had said.
    pub reconnects_announced: u64,
    /// Connections that went with a killed process or a brutal reload, with no request on them.
    pub reconnects_excused: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn lost(opened: u64, at: u64, port: u16) -> Incident {
        let what = What::Lost(Loss::Reset);
        Incident { kind: Kind::KeepAlive, what, at: ms(at), opened: ms(opened), port }
    }

    fn kill() -> Excuse {
        Excuse { why: "kill", from: ms(100), until: ms(101), ports: Some([4000, 4001].into()) }
    }

    fn brutal() -> Excuse {
        Excuse { why: "brutal", from: ms(500), until: ms(600), ports: None }
    }

    #[test]
    fn a_kill_excuses_what_the_dead_process_held_and_nothing_else() {
        let cases = [
            (lost(50, 102, 4000), true),
            // Noticed late: it was reading slowly.
            (lost(50, 9000, 4001), true),
            (lost(50, 102, 4002), false),
            // Opened after the kill: the number is used again.
            (lost(150, 160, 4000), false),
            (lost(50, 90, 4000), false),
        ];
        for (incident, excused) in cases {
            assert_eq!(kill().covers(&incident), excused, "{incident:?}");
        }
    }

    #[test]
    fn a_brutal_reload_excuses_what_was_opened_before_its_end() {
        for (opened, at, excused) in [
            (50, 550, true),
            (550, 560, true),
            (50, 601, true),
            (50, 499, false),
            (650, 660, false),
            (50, 5601, false),
        ] {
            assert_eq!(brutal().covers(&lost(opened, at, 1)), excused, "{opened} {at}");
        }
    }

    #[test]
    fn incidents_are_sorted_by_their_excuse() {
        let closed = |at, announced| Incident { what: What::Closed { announced }, ..lost(0, at, 7) };
        let incidents = vec![
            lost(0, 300, 7),
            lost(0, 550, 7),
            closed(300, false),
            closed(301, true),
            closed(510, false),
            closed(511, true),
        ];
        let tally = Tally { incidents, ..Tally::default() };
        let verdict = tally.judge(&[kill(), brutal()]);
        assert_eq!(verdict.lost, [&tally.incidents[0]]);
        assert_eq!(verdict.excused, [(&tally.incidents[1], "brutal")]);
        let reconnects = (verdict.reconnects, verdict.reconnects_announced, verdict.reconnects_excused);
        assert_eq!(reconnects, (1, 1, 2));
    }

    #[test]
    fn the_books_of_clients_add_up_and_pauses_are_no_stalls() {
        let (mut one, mut other) = (Tally { clients: 1, ..Tally::default() }, Tally::default());
        one.answer(ms(5), ms(20), false);
        one.answer(ms(30), ms(900), true);
        other.answer(ms(7), ms(40), false);
        one.merge(other);
        assert_eq!((one.clients, one.answered, one.waits.count()), (1, 3, 2));
        assert_eq!(one.longest, (ms(40), ms(7)));
    }
}
