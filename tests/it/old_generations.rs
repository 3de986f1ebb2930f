//! Generations that still finish their requests do not pile up without a bound.

use crate::support::{Exchange, Failure, LIMIT, Server, eventually};

#[test]
fn one_more_than_max_draining_generations_and_the_oldest_is_cut_with_evidence() {
    let server = Server::app()
        .args(["--master", "--processes=1", "--threads=8", "--max-draining-generations=2"])
        .start();
    let mut exchanges = Vec::new();
    for generation in 2..=3 {
        exchanges.push(Exchange::stream(server.target()));
        server.reload();
        server.wait_reloaded(generation);
    }
    exchanges.push(Exchange::stream(server.target()));
    let oldest = exchanges.remove(0);
    let mark = server.log().mark();
    server.reload();
    let pid = oldest.pid();
    let line = server.wait_for_log_after(mark, "has to leave at once: ");
    assert!(line.contains(&format!("worker 1 (pid: {pid}, generation 1) has to leave at once")), "{line}");
    assert!(line.contains("max-draining-generations = 2") && line.contains("POST /echo"), "{line}");
    let cut = oldest.finish().err();
    assert!(matches!(cut, Some(Failure::Truncated | Failure::Reset)), "{cut:?}");
    eventually("it is gone", LIMIT, || (!crate::support::processes::is_alive(pid)).then_some(()));
    for exchange in exchanges {
        exchange.finish().unwrap();
    }
}
