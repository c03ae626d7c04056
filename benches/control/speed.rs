//! How fast the socket answers with nothing else going on.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, Line};
use crate::echo::Echo;
use crate::figures::{percentile, summary};

/// Connections that ask as fast as they can.
const CONNECTIONS: usize = 8;

/// Requests that each of them has under way.
const UNDER_WAY: usize = 16;

/// How long they ask.
const TIME: Duration = Duration::from_secs(3);

/// Who hears of an event.
const SUBSCRIBERS: usize = 1_000;

const ROUND_TRIPS: usize = 20_000;
/// How often xyd and its limit take turns in them.
const TURNS: usize = 10;
const LISTS: usize = 300;
const EVENTS: usize = 30;

pub(crate) fn run(daemon: &Daemon) {
    println!("{} servers, one xyd", daemon.servers);
    let mut xyd = Line::connect(&daemon.socket()).expect("it listens");
    let answer = xyd.ask(&status(0)).expect("an answer");
    let mut echo = Echo::start(answer.len());
    // By turns, so that both meet the same machine.
    let (mut status_times, mut echo_times) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        status_times.extend(round_trips(&mut xyd, &status(0), ROUND_TRIPS / TURNS));
        echo_times.extend(round_trips(echo.line(), &status(0), ROUND_TRIPS / TURNS));
    }
    let ratio = percentile(&status_times, 0.5).as_secs_f64() / percentile(&echo_times, 0.5).as_secs_f64();
    println!("status, round trip           {}", summary(status_times));
    println!("the same bytes, echoed       {}", summary(echo_times));
    println!("status to echo, p50          {ratio:.2}");
    let list = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n".to_vec();
    println!("list of all                  {}", summary(round_trips(&mut xyd, &list, LISTS)));
    for under_way in [1, UNDER_WAY] {
        let rate = throughput(daemon, under_way);
        println!("status, {CONNECTIONS} connections, {under_way:>2} under way each: {rate:.0}/s");
    }
    println!("event to {SUBSCRIBERS} subscribers    {}", summary(events(daemon)));
}

fn status(index: usize) -> Vec<u8> {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"status\",\"params\":{{\"name\":\"s{index}\"}}}}\n")
        .into_bytes()
}

fn round_trips(line: &mut Line, request: &[u8], count: usize) -> Vec<Duration> {
    let mut one = || {
        let began = Instant::now();
        let answer = line.ask(request).expect("an answer");
        let took = began.elapsed();
        assert!(!answer.windows(7).any(|part| part == b"\"error\""), "{}", String::from_utf8_lossy(&answer));
        took
    };
    let warm = count / 10;
    (0..warm + count).map(|_| one()).skip(warm).collect()
}

/// Returns how many requests were answered in a second.
fn throughput(daemon: &Daemon, under_way: usize) -> f64 {
    let start = Arc::new(Barrier::new(CONNECTIONS));
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|index| {
            let (mut line, start) =
                (Line::connect(&daemon.socket()).expect("it listens"), Arc::clone(&start));
            let request = status(index).repeat(under_way);
            thread::spawn(move || {
                start.wait();
                let (began, mut answered) = (Instant::now(), 0);
                while began.elapsed() < TIME {
                    line.send(&request).expect("it reads");
                    for _ in 0..under_way {
                        line.receive().expect("an answer");
                    }
                    answered += under_way;
                }
                answered as f64 / began.elapsed().as_secs_f64()
            })
        })
        .collect();
    clients.into_iter().map(|client| client.join().expect("no panic")).sum()
}

/// Returns how long it takes from a request that makes an event until the last subscriber has it.
fn events(daemon: &Daemon) -> Vec<Duration> {
    let subscribe = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"events\",\"params\":{\"follow\":true}}\n";
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS)
        .map(|_| {
            let mut line = Line::connect(&daemon.socket()).expect("it listens");
            line.ask(subscribe).expect("subscribed");
            line
        })
        .collect();
    let mut operator = Line::connect(&daemon.socket()).expect("it listens");
    let mut measured = Vec::new();
    for round in 0..EVENTS {
        let method = ["pause", "resume"][round % 2];
        let request = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{{\"names\":[\"s0\"]}}}}\n"
        );
        let began = Instant::now();
        operator.send(request.as_bytes()).expect("it reads");
        for line in &mut subscribers {
            let event = line.receive().expect("an event");
            assert!(event.windows(7).any(|part| part == b"\"event\""), "{}", String::from_utf8_lossy(&event));
        }
        measured.push(began.elapsed());
        operator.receive().expect("an answer");
    }
    measured
}
