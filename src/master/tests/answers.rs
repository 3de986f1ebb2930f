//! What those hear who asked.

use super::*;

/// Outcomes of the reloads so far, with the tickets they answer.
fn outcomes(answer: &Answer) -> Vec<(u64, u64, Outcome)> {
    answer.reloads.iter().map(|it| (it.id, it.ticket, it.outcome.clone())).collect()
}

#[test]
fn who_asked_hears_how_far_a_reload_is() {
    let mut bench = Bench::running(2);
    assert_eq!(bench.master.answer().reloads, []);
    bench.master.note_ticket(1);
    bench.command(Command::Reload);
    let progress =
        |prepared, ready| Some(Progress { prepared, ready, wanted: 2, waits_for: 0, restoring: false });
    assert_eq!(bench.master.answer().progress, progress(false, 0));
    bench.zygote_loads(2);
    assert_eq!(bench.master.answer().progress, progress(true, 0));
    bench.worker_serves(3);
    assert_eq!(bench.master.answer().progress, progress(true, 1));
    bench.worker_serves(4);
    let answer = bench.master.answer();
    assert_eq!((answer.generation, answer.leaving), (2, 2));
    assert_eq!(outcomes(&answer), [(1, 1, Outcome::Serves)]);

    let saved = bench.master.save(bench.now, &[]);
    let text = serde_json::to_string(&saved).expect("it can be written");
    let saved = serde_json::from_str(&text).expect("it can be read");
    let next = Master::restore(saved, bench.next_policy.clone(), BTreeMap::new(), bench.now);
    assert_eq!(outcomes(&next.answer()), [(1, 1, Outcome::Complete { remark: None })]);
}

#[test]
fn who_asked_hears_why_the_old_generation_was_kept() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    let pid = bench.pid();
    bench.step(Event::ZygoteSpawned { generation: 2, pid });
    bench.step(Event::ZygoteLoadFailed { generation: 2, reason: "SyntaxError".into(), code: 1 });
    bench.dies(pid, LEFT);
    let refused = Outcome::Refused { reason: "SyntaxError".into() };
    assert_eq!(outcomes(&bench.master.answer()), [(1, 0, refused)]);
    assert_eq!(bench.master.answer().generation, 1);
}

#[test]
fn a_newer_request_has_an_answer_of_its_own() {
    let mut bench = Bench::running(1);
    for ticket in 1..=2 {
        bench.master.note_ticket(ticket);
        bench.command(Command::Reload);
    }
    let expected = [(1, 1, Outcome::GaveWay), (2, 2, Outcome::Underway)];
    assert_eq!(outcomes(&bench.master.answer()), expected);
    // From now on the next one has to wait, and does not answer those who come meanwhile.
    bench.zygote_loads(3);
    bench.master.note_ticket(3);
    bench.command(Command::Reload);
    assert_eq!(outcomes(&bench.master.answer()), expected);
    bench.command(Command::Stop);
    let answer = bench.master.answer();
    assert_eq!(answer.doing, Doing::Stopping);
    assert_eq!(outcomes(&answer)[1], (2, 2, Outcome::Stopped));
}

#[test]
fn a_master_that_cannot_be_replaced_says_so_and_serves() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    bench.zygote_loads(2);
    bench.worker_serves(2);
    bench.step(Event::ReExecFailed { reason: "no such file".into() });
    let outcome = &outcomes(&bench.master.answer())[0].2;
    assert!(matches!(outcome, Outcome::Complete { remark: Some(it) } if it.contains("no such file")));
}

#[test]
fn before_the_first_generation_serves_a_reload_has_not_begun() {
    let mut bench = Bench::new(1);
    bench.step(Event::Start);
    bench.command(Command::Reload);
    let answer = bench.master.answer();
    assert_eq!((answer.doing, answer.reloads), (Doing::Starting, vec![]));
}

#[test]
fn the_state_of_a_release_without_answers_is_taken_over() {
    let mut bench = Bench::running(1);
    bench.command(Command::Reload);
    bench.zygote_loads(2);
    bench.worker_serves(2);
    let mut saved = serde_json::to_value(bench.master.save(bench.now, &[])).expect("it can be written");
    saved.as_object_mut().and_then(|it| it.remove("journal")).expect("there is one");
    let saved = serde_json::from_value(saved).expect("it can be read");
    let next = Master::restore(saved, bench.next_policy.clone(), BTreeMap::new(), bench.now);
    assert_eq!((next.generation(), next.answer().reloads), (2, vec![]));
}
