//! Each end has a cause, and what has not come about is counted.

use super::*;

/// What is told of the last worker of a slot.
fn ended(bench: &Bench, slot: u32) -> String {
    let slots = bench.master.slot_standings(|_| 1);
    slots.into_iter().find(|it| it.slot == slot).map(|it| it.ended).unwrap_or_default()
}

#[test]
fn a_slot_remembers_how_its_last_worker_ended_across_a_re_exec() {
    let mut bench = Bench::running(2);
    bench.now += Duration::from_secs(5);
    assert_eq!(ended(&bench, 2), "");
    let pid = bench.pid_of(2);
    bench.dies(pid, Exit::Signal { number: 11, core: true });
    assert_eq!(ended(&bench, 2), "crash (SIGSEGV, core dumped)");
    assert_eq!(bench.master.causes().to_string(), "crash 1");
    bench.now += Duration::from_secs(3);
    bench.re_executes();
    let epoch = bench.now - Duration::from_secs(100);
    let slots = bench.master.slot_standings(|at| at.duration_since(epoch).as_millis() as u64);
    assert_eq!(slots[0].before(100_000).as_deref(), Some("before it: crash (SIGSEGV, core dumped) 3 s ago"));
    assert_eq!(bench.master.causes().of(Cause::Crash), 1);
}

#[test]
fn the_counters_of_the_kernel_explain_a_kill() {
    let mut bench = Bench::running(1);
    let (worker, zygote) = (bench.pid_of(1), bench.zygote_pid(1));
    assert!(bench.master.is_unexplained(worker) && bench.master.is_unexplained(zygote));
    let evidence = || "killed by the kernel, out of memory (oom_kill: 0, now 1)".to_owned();
    bench.step(Event::OutOfMemory { pid: worker, evidence: evidence() });
    assert!(!bench.master.is_unexplained(worker));
    let actions = bench.dies(worker, KILLED);
    let told = actions.iter().find_map(|it| match it {
        Action::ReportDeath { cause, reason, .. } => Some((*cause, reason.clone())),
        _ => None,
    });
    assert_eq!(told, Some((Cause::OutOfMemory, Some(evidence()))));
    bench.step(Event::OutOfMemory { pid: zygote, evidence: evidence() });
    bench.dies(zygote, KILLED);
    assert!(bench.logged("zygote of generation 1 lost: the zygote was killed by the kernel, out of memory"));
    assert!(!bench.master.is_unexplained(Pid::from_raw(4)), "a stranger");
}

#[test]
fn a_kill_that_the_master_has_sent_needs_no_other_explanation() {
    let mut bench = Bench::running(1);
    bench.command(Command::ReloadWorkers);
    let pid = bench.worker_forks(2);
    bench.later(Duration::from_secs(10));
    assert!(!bench.master.is_unexplained(pid));
    bench.step(Event::OutOfMemory { pid, evidence: "not this one".to_owned() });
    bench.dies(pid, KILLED);
    assert_eq!(bench.master.causes().to_string(), "boot-timeout 1");
}

#[test]
fn refused_reloads_and_failed_replacements_are_counted() {
    let mut bench = Bench::running(1);
    bench.command(Command::ChainReload);
    let pid = bench.worker_forks(2);
    bench.dies(pid, KILLED);
    bench.command(Command::Reload);
    bench.zygote_loads(2);
    let pid = bench.worker_forks(3);
    bench.dies(pid, KILLED);
    assert_eq!(bench.master.setbacks().to_string(), "reloads refused 1, replacements failed 1");
    let zygote = bench.zygote_pid(2);
    bench.dies(zygote, KILLED);
    bench.re_executes();
    assert_eq!(bench.master.answer().setbacks.to_string(), "reloads refused 1, replacements failed 1");
}

#[test]
fn workers_of_a_refused_generation_end_as_refused() {
    let mut bench = Bench::surging();
    let (fails, other) = (bench.worker_forks(3), bench.worker_forks(4));
    bench.dies(fails, KILLED);
    bench.dies(other, LEFT);
    assert_eq!(bench.master.causes().to_string(), "refused 1, signal 1");
    assert_eq!(ended(&bench, 2), "refused");
}

#[test]
fn reasons_are_one_line_of_bounded_length() {
    let mut bench = Bench::running(1);
    let pid = bench.pid_of(1);
    bench.step(Event::WorkerLoadFailed {
        worker: 1,
        reason: format!("bad\u{1b}[1m\nnews {}", "é".repeat(500)),
    });
    bench.dies(pid, Exit::Code(22));
    for _ in 0..3 {
        let Some(at) = bench.master.deadline() else { break };
        let actions = bench.later(at - bench.now);
        for worker in spawned(&actions) {
            bench.step(Event::WorkerForkFailed { worker, reason: "no".into() });
        }
    }
    let slot = &bench.master.slot_standings(|_| 1)[0];
    assert!(slot.ended == "load-failed" || slot.ended == "fork-failed", "{slot:?}");
    let text = serde_json::to_string(slot).expect("plain data");
    assert!(text.len() < 600 && !text.contains("\\u001b"), "{text}");
}
